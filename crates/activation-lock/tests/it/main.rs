//! The crate from outside: published vectors, and properties that hold for every input.

mod bypass_code;
mod order;
mod walk;
