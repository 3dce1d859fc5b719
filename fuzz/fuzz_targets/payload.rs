#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tierkeep_fuzz::payload(data);
});
