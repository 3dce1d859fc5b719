//! Formats and compressors: all of them, through every kind of backend and runtime, and when they misbehave.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "formats/archived.rs"]
mod archived;
#[path = "formats/hostile.rs"]
mod hostile;
#[path = "formats/misbehaving.rs"]
mod misbehaving;
#[path = "formats/registered.rs"]
mod registered;
#[path = "formats/support.rs"]
mod support;
#[path = "formats/table.rs"]
mod table;
