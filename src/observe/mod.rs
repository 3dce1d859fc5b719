//! Looking into a running cache: what it is asked, what happens to it, and how it fares.
//!
//! [`inspect`](crate::Cache::inspect) is a snapshot of everything, [`health`](crate::Cache::health) the short answer
//! for a probe, [`events`](crate::Cache::events) what happens as it happens. Features add `metrics` and `tracing`.

mod events;
mod health;
mod hot_keys;
mod inspect;
#[cfg(feature = "metrics")]
mod metrics;
mod outbox;
mod striped;
pub(crate) mod trace;
#[cfg(not(feature = "metrics"))]
mod unmetered;

use std::sync::Arc;

use crate::runtime::RuntimeHandle;

#[cfg(feature = "metrics")]
use self::metrics as meters;
#[cfg(not(feature = "metrics"))]
use self::unmetered as meters;

pub use events::{BypassCause, Event, EventKind, EventStream, Removals};
pub(crate) use events::{CAPACITY, Events};
pub use health::{Health, HealthCause, HealthReason, HealthStatus};
pub use hot_keys::HotKey;
pub(crate) use hot_keys::HotKeys;
pub use inspect::{Inspection, TierInspection};
pub(crate) use meters::{Began, Meter, RegionMeter, TierMeter};
pub(crate) use outbox::Outbox;
pub(crate) use striped::Striped;

/// Whom a cache tells.
pub(crate) struct Telling {
    pub(crate) events: Arc<Events>,
    pub(crate) meter: Meter,
    pub(crate) hot_keys: Option<HotKeys>,
}

impl Telling {
    pub(crate) fn new(runtime: &RuntimeHandle, name: &str, hot_keys: bool) -> Self {
        Self {
            events: Events::new(runtime),
            meter: Meter::new(name),
            hot_keys: hot_keys.then(HotKeys::default),
        }
    }
}
