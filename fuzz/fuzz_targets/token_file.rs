#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| apple::fuzzing::token_file(bytes));
