//! The disk tier against real files, and the adapter that runs synchronous stores.
#![cfg(feature = "disk")]
#![expect(missing_docs, reason = "a test binary has no public API")]

#[path = "disk/basics.rs"]
mod basics;
#[path = "disk/blocking.rs"]
mod blocking;
#[path = "disk/bounds.rs"]
mod bounds;
#[path = "disk/clear.rs"]
mod clear;
#[path = "disk/crash.rs"]
mod crash;
#[path = "disk/damage.rs"]
mod damage;
#[path = "disk/harness.rs"]
mod harness;
