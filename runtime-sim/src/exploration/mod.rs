//! Exploration: random caches under random work and random faults, each hit checked against the history of its key.
//!
//! A seed draws a [`Scenario`]: one to four tiers of mixed kinds, policies, deadlines, batch sizes, concurrency, a
//! workload of several callers, and fault rates. [`run`] plays it in the simulator and returns what was checked and
//! what was wrong; [`shrink`] looks for a shorter workload that is still wrong. `cargo run --release -p tierkeep-sim
//! --example explore` does it for thousands of seeds; `tests/exploration.rs` for a thousand.

mod behind;
mod freshest;
#[cfg(feature = "journal")]
mod restarts;
mod scenario;
mod shrink;
mod tiers;
mod witness;
mod world;

pub use crate::history::Violation;
pub use behind::BehindPlan;
pub use freshest::newest_stamp_wins;
#[cfg(feature = "journal")]
pub use restarts::{Restarts, restarts};
pub use scenario::{Kind, Loader, Scenario, Step, StepKind, TierPlan};
pub use shrink::shrink;
pub use world::{Outcome, run};
