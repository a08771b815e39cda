//! The one binary `lockwarden`.
fn main() {}
