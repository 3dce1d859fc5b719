//! What a cache tells, and what an operator can do to it.
#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

#[path = "telling/bypass.rs"]
mod bypass;
#[path = "telling/events.rs"]
mod events;
#[path = "telling/handles.rs"]
mod handles;
#[path = "telling/health.rs"]
mod health;
#[path = "telling/hot_keys.rs"]
mod hot_keys;
#[cfg(feature = "metrics")]
#[path = "telling/metrics.rs"]
mod metrics;
#[cfg(feature = "moka")]
#[path = "telling/moka.rs"]
mod moka;
#[path = "telling/queue.rs"]
mod queue;
#[path = "telling/read_only.rs"]
mod read_only;
#[path = "telling/rude.rs"]
mod rude;
#[path = "telling/support.rs"]
mod support;
