//! Events of MDMs, read.
