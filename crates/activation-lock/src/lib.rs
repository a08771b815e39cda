//! What a bypass code is, which code to try next, and what an answer of Apple's means.
//!
//! This crate is pure: no async, no I/O, no clock, no global randomness. Time and randomness are
//! arguments. It implements Apple's page "Creating and Using Bypass Codes" and the rules a server needs
//! around it: which answers of a device replace which code, in which order codes are tried, and what
//! may be said about a lock afterwards.
//!
//! ```
//! use activation_lock::bypass_code::{BypassCode, EscrowKeyHash};
//!
//! let code = BypassCode::parse("000H4-0R40M-30F2-0918-5HR3-8F17").expect("a published vector");
//! assert!(code.raw().starts_with(&[0, 1, 2, 3]));
//! assert!(EscrowKeyHash::of(&code).to_string().starts_with("C5CED1D0"));
//! ```

pub mod asking;
pub mod batch;
pub mod bypass_code;
pub mod codes;
pub mod device;
pub mod explain;
pub mod fuzzing;
pub mod guard;
pub mod hash;
pub mod lock;
pub mod observation;
pub mod operation;
pub mod time;
pub mod unlock;
pub mod window;
