//! The vault, tested through its verbs.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod approvals;
mod backups;
mod batches;
mod beside;
mod commands;
mod devices;
mod exports;
mod keys;
mod locks;
mod looks;
mod notices;
mod operations;
mod people;
mod principals;
mod record;
mod replicas;
mod simulation;
mod support;
mod texts;
mod unaudited;
mod verbs;
