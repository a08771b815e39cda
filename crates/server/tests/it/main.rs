//! The server, tested from outside: against the fakes, over real HTTP and mutual TLS.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod api;
mod connectors;
mod console;
mod fuzz;
mod listener;
mod support;
mod worker;
