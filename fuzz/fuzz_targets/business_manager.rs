#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| apple::fuzzing::business_manager(bytes));
