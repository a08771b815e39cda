//! Everything spoken with Apple, and the formats Apple made for speaking with devices.
//!
//! The crate knows HTTP and TLS and no database. [`push_certificate`] is what Apple knows an organisation by,
//! [`escrow_key_unlock`] turns a lock off with a code, [`dep`] turns one on and lists devices, [`business_manager`] asks Apple
//! how a lock is, and [`mdm`] writes commands to devices and reads their answers. What could not be checked against the real
//! Apple is in one place, [`unverified`].

pub mod business_manager;
pub mod dep;
pub mod escrow_key_unlock;
pub mod fuzzing;
pub mod mdm;
pub mod push_certificate;
pub mod redaction;
pub mod transport;
pub mod unverified;
