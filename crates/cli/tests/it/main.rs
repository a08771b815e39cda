//! Integration tests of the whole program, and the tidy test that keeps its shape.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod apple_lock;
mod apple_lock_status;
mod apple_unlock;
mod approvals;
mod audit;
mod backups;
mod balancer;
mod bulk;
mod code;
mod console;
mod crowds;
mod durable;
mod help;
mod installation;
mod keys;
mod kill;
mod kill_locks;
mod leaks;
mod locks;
mod people;
mod replicas;
mod roles;
mod sandbox;
mod setup;
mod sim_apple;
mod support;
mod survival;
mod tidy;
