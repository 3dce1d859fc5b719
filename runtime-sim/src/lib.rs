//! A deterministic simulator as Tierkeep's runtime: the same seed runs the same program in the same order, and an
//! hour of virtual time takes milliseconds.
//!
//! Everything runs on the calling thread. The seed decides which ready task runs next, how long a poll takes, when a
//! blocking job is done and what [`Runtime::random`](tierkeep::runtime::Runtime::random) draws. Time passes only as
//! polls cost it, and jumps to the next timer when nothing is ready. A test that fails under a seed fails again under
//! that seed.
//!
//! ```
//! use std::time::Duration;
//! use tierkeep::runtime::{Runtime, RuntimeHandle};
//! use tierkeep_sim::Sim;
//!
//! let sim = Sim::new(7);
//! let runtime = RuntimeHandle::new(sim.runtime());
//! let refreshed = sim.block_on(async {
//!     // Your code under test: here, something that refreshes every minute until an hour has passed.
//!     let end = runtime.now().after(Duration::from_secs(3600));
//!     let refresher = runtime.clone();
//!     let task = runtime.spawn(async move {
//!         let mut refreshed = 0;
//!         while refresher.deadline(end, refresher.sleep(Duration::from_secs(60))).await.is_some() {
//!             refreshed += 1;
//!         }
//!         refreshed
//!     });
//!     task.await
//! });
//! assert!(matches!(refreshed, Ok(Ok(59..=60))));
//! assert!(sim.now().as_nanos() >= 3_600_000_000_000);
//! ```
//!
//! A program that can go no further is an error, not a hang:
//!
//! ```
//! use tierkeep_sim::{Sim, StallReason};
//!
//! let stall = Sim::new(1).block_on(std::future::pending::<()>()).unwrap_err();
//! assert_eq!(stall.reason, StallReason::Deadlock);
//! ```
//!
//! [`explore`] runs one test under many seeds. [`Faulty`] wraps any backend and makes it fail in every way a store
//! fails, here or on a real runtime; [`MapBackend`] is a store to put under it. [`history`] tells whether what was read may
//! have been read.
//!
//! `examples/hour_of_ttls.rs` is a whole test of an application's cache: an hour of TTLs with an origin that fails.
//!
//! What the simulator cannot make repeat: iteration over a `std` `HashMap` with a random state, real clocks, real
//! threads, and addresses used as values. Keep them out of what you test.

// The engine never panics on its own account, and says why a size fits. Tests may be shorter.
#![warn(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod blocking;
mod core;
pub mod exploration;
mod explore;
mod faults;
pub mod history;
mod map_backend;
mod options;
mod rng;
mod runtime;
mod sim;
mod stall;
mod state;
mod timer;
mod trace;

pub use explore::explore;
pub use faults::{Fault, FaultPlan, Faulty, Op};
pub use map_backend::MapBackend;
pub use options::SimOptions;
pub use runtime::SimRuntime;
pub use sim::{Drained, Sim};
pub use stall::{Stall, StallReason, WaitingTask};
pub use trace::{TraceEvent, TraceStep};

/// Runs the example with the doctests.
#[cfg(doctest)]
#[doc = concat!("```\n", include_str!("../examples/hour_of_ttls.rs"), "\n```")]
struct HourOfTtls;

/// Runs the guide's code with the doctests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/order.md")]
struct OrderGuide;
