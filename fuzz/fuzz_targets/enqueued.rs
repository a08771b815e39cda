#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    server::connectors::fuzzing::enqueued(bytes);
});
