//! The disk tier against real files, and the adapter that runs synchronous stores.
#![cfg(feature = "disk")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "disk/basics.rs"]
mod basics;
#[path = "disk/blocking.rs"]
mod blocking;
#[path = "disk/bounds.rs"]
mod bounds;
#[path = "disk/clear.rs"]
mod clear;
#[path = "disk/concurrent.rs"]
mod concurrent;
#[path = "disk/crash.rs"]
mod crash;
#[path = "disk/damage.rs"]
mod damage;
#[path = "disk/harness.rs"]
mod harness;
