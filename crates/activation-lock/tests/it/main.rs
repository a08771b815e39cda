//! The crate from outside: published vectors, and properties that hold for every input.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod bypass_code;
mod lock;
mod order;
mod unlock;
mod walk;
