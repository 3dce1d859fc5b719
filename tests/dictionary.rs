//! Dictionaries: trained by a region, stored in the tiers, found again, and missed without harm.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "dictionary/given.rs"]
mod given;
#[path = "dictionary/lasting.rs"]
mod lasting;
#[cfg(feature = "disk")]
#[path = "dictionary/process.rs"]
mod process;
#[path = "dictionary/region.rs"]
mod region;
#[path = "dictionary/stored.rs"]
mod stored;
#[path = "dictionary/support.rs"]
mod support;
