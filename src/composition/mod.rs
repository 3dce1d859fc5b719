//! Composition: several tiers as one cache.
//!
//! The supervisor is the control plane: it starts the tiers' actors and publishes the route. Callers are
//! the data plane: they follow the route themselves, so that the supervisor is never in their way.

mod asked;
mod at_once;
mod backend;
mod compose;
#[cfg(feature = "zstd")]
mod dictionary;
mod encode;
mod engine;
mod policy;
mod read;
mod redrive;
mod refill;
mod route;
mod shutdown;
mod supervisor;
#[cfg(feature = "rkyv_format")]
mod view;
mod write;

pub use backend::CompositionBackend;
pub use compose::{Compose, Composition, CompositionBuilder};
#[cfg(feature = "zstd")]
pub(crate) use dictionary::PREFIX as DICTIONARIES;
pub(crate) use engine::{Engine, EngineOptions};
pub use policy::{CompositionPolicy, ReadPolicy, RefillContext, RefillPolicy, WritePolicy};
pub(crate) use read::{Found, Reading};
pub(crate) use refill::Refill;
#[cfg(feature = "backplane")]
pub(crate) use route::RouteTier;
pub use shutdown::{ShutdownReport, TierShutdown, WriteBehindShutdown};
#[cfg(feature = "testing")]
pub(crate) use supervisor::Report;
