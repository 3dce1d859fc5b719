//! Tiers: a backend behind an actor, with everything that keeps its failures to itself.

mod breaker;

#[expect(unused_imports, reason = "the tier's actor, which comes next, holds the breaker")]
pub(crate) use breaker::{Admission, Breaker, ProbePermit};
pub use breaker::{BreakerOptions, BreakerState};
