//! Apple's device enrolment service (contract sheet, section 2).

mod ber;
pub mod key;
pub mod token;
pub mod token_file;
