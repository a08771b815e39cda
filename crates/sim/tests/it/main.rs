//! The fakes, from outside: raw HTTP against the fake Apple, a small webhook receiver behind the fake MDM.

mod apple;
mod control;
mod devices;
mod faults;
mod nanomdm;
mod support;
mod tls;
mod world;
