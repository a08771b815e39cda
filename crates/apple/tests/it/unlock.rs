//! The unlock call against the fake of Apple's service, over mutual TLS.

mod answers;
mod tls;
mod wire;
