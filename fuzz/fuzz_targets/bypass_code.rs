#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| activation_lock::fuzzing::bypass_code(bytes));
