//! Tiers: each one a backend behind an actor that can fail, restart and heal without the cache noticing more than
//! misses.
//!
//! [`TierCore`] is the half that lasts: backend, ledger, quarantine, breaker, counters. The [`TierActor`] is an
//! incarnation that works on it; a restart adopts everything. Mutations carry themselves as guards ([`Mutation`]):
//! whatever becomes of the message, its key is settled. A store with a port is written by the callers themselves while
//! its actor runs ([`at_once`]), and what needs calls is queued by them; the ledger keeps their order, and the mailbox takes
//! what is not as simple.

mod actor;
mod arrivals;
mod at_once;
mod behind;
mod breaker;
mod bypass;
mod call;
mod core;
mod counters;
mod decodes;
mod finish;
mod gate;
mod health;
mod ledger;
pub(crate) mod message;
mod options;
mod outdated;
mod overruled;
mod pump;
mod quarantine;
mod queue;
mod repair;
mod shown;
mod watch;

pub(crate) use self::core::TierCore;
pub(crate) use actor::TierActor;
pub(crate) use behind::Accepting;
pub use behind::{WriteBehindCounts, WriteBehindInspection};
pub use breaker::{BreakerOptions, BreakerState};
pub(crate) use counters::Counters;
pub use counters::{ReadCounts, WriteCounts};
pub(crate) use message::{
    Change, ClearOp, Fill, Message, Mutation, Open, ReadAnswer, ReadOp, Settled, Settlement,
};
pub use options::{ErrorPolicy, Tier, TierOptions};
pub(crate) use outdated::Surroundings;
