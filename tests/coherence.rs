//! Real processes that share one real Redis server: how old a value can be that one shows and another has replaced.
//!
//! Each process is this test binary again, told over its standard input what to do. Half of them run on tokio, half on
//! smol, each with its own driver.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]
#![expect(clippy::disallowed_methods, reason = "the processes compare what their clocks say")]

#[path = "coherence/child.rs"]
mod child;
#[cfg(feature = "redis-cluster")]
#[path = "coherence/cluster.rs"]
mod cluster;
#[path = "coherence/history.rs"]
mod history;
#[path = "coherence/process.rs"]
mod process;
#[path = "coherence/stale.rs"]
mod stale;
