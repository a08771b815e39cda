//! Each outcome in words: what happened, what it means for the device, what to do.
