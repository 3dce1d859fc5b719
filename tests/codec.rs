//! The codec: frames, formats, compressors, limits and the pool.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::cast_possible_truncation, reason = "these tests make bytes of numbers")]

mod codec {
    mod codecs;
    mod frames;
    mod hostile;
    mod pace;
    mod pool;
    mod support;
    mod types;
}
