//! Looking into a running cache.

mod inspect;

pub use inspect::{Inspection, TierInspection};
