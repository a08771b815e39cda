//! Apple Business Manager and Apple School Manager: the assertion against files and verifiers that this project did not
//! write, the service against its fake.

mod assertion;
