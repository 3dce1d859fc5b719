//! The Redis tier on real servers, with both drivers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "redis/lives.rs"]
mod lives;
#[path = "redis/support.rs"]
mod support;
