//! Integration tests of the apple crate: its formats against files that other programs made, and its calls against the
//! fake of Apple's service.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod business_manager;
mod dep;
mod fuzz;
mod mdm;
mod push_certificate;
mod redaction;
mod support;
mod unlock;
