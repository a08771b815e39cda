//! The fakes, from outside: raw HTTP against the fake Apple, a small webhook receiver behind the fake MDM.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod apple;
mod business_client;
mod business_manager;
mod control;
mod control_services;
mod dep;
mod dep_client;
mod dep_devices;
mod dep_lock;
mod dep_nanodep;
mod dep_token_file;
mod devices;
mod faults;
mod nanomdm;
mod support;
mod tls;
mod world;
