//! Apple's device enrolment service: server token files that OpenSSL made.

mod token_file;
