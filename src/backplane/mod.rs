//! The backplane: how processes that share a store tell each other what they have written.
//!
//! Without it, what another process wrote shows once this process's own copy is over its cap (30 s by default). With it,
//! each process publishes the keys that its shared tier has confirmed, and the others drop what they hold of them that
//! is older. The [transport](Backplane) may lose messages, whole stretches of them, and the end of a stretch: messages
//! are numbered, heartbeats carry the last number, and a process that may have missed something drops everything that
//! its unshared tiers hold. A lost message costs misses, never a value that stays old.
//!
//! ```
//! use tierkeep::backplane::LocalBackplane;
//! use tierkeep::{Cache, MemoryBackend, Region, Tier};
//! # use tierkeep_sim::{MapBackend, Sim};
//! # let sim = Sim::new(1);
//! # let runtime = sim.runtime();
//! # let shown = sim.block_on(async move {
//! # let store = MapBackend::comparing(); // stands for Redis
//! let backplane = LocalBackplane::new(); // applications: `redis.backplane()`
//! let open = async |store, backplane| {
//!     Cache::builder(runtime.clone()).tier(MemoryBackend::entries(100)).tier(store).backplane(backplane).build().await
//! };
//! let (here, there) = (open(store.clone(), backplane.clone()).await?, open(store, backplane).await?);
//! let prices: Region<u64, str> = here.region("price").no_expiry().build()?;
//! let seen: Region<u64, str> = there.region("price").no_expiry().build()?;
//! prices.set("tea", 3).await?;
//! assert_eq!(*seen.get("tea").await.ok_or("set")?, 3);
//!
//! prices.set("tea", 4).await?;
//! # tierkeep::runtime::RuntimeHandle::new(runtime.clone()).sleep(std::time::Duration::from_millis(20)).await;
//! // A moment later:
//! assert_eq!(*seen.get("tea").await.ok_or("set")?, 4);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # });
//! # shown.unwrap().unwrap();
//! ```
//!
//! How old a value can be, in each case, stands in `docs/coherence.md`.

mod apply;
mod link;
mod local;
mod options;
mod outbox;
mod packet;
mod peers;
mod receive;
mod send;
mod status;

pub(crate) use link::Link;
pub use local::LocalBackplane;
pub use options::BackplaneOptions;
pub(crate) use options::Chosen;
pub use status::{BackplaneInspection, BackplaneState, DropCause};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::BackendResult;
use crate::runtime::RuntimeHandle;
use crate::value::Raw;

/// A way to send small messages to every process that shares a store, this one included.
///
/// It need not be reliable: what is lost is noticed. The messages of one publisher should arrive in order; one that
/// arrives late is treated as lost. A process must hear its own messages too, since that is how it knows that it hears.
#[async_trait]
pub trait Backplane: Send + Sync + 'static {
    /// Sends a message (some KiB at most) to all subscribers. Called from tasks of `runtime`, one call at a time. When
    /// it fails, or does not return within a second, the same message is sent again.
    ///
    /// # Errors
    /// Whatever the transport reports; the message may have been sent all the same.
    async fn publish(&self, runtime: &RuntimeHandle, message: Raw) -> BackendResult<()>;

    /// Begins to hear. Called again whenever a subscription has ended; while it fails it is tried again, with backoff.
    ///
    /// # Errors
    /// Whatever the transport reports.
    async fn subscribe(&self, runtime: &RuntimeHandle) -> BackendResult<Box<dyn Subscription>>;

    /// For how long an attempt to subscribe may go on; it is then given up and made anew. What may have been missed is
    /// dropped after a second without a subscription in any case. Default: 1 s.
    fn subscribe_limit(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Called once, when a cache is built: whether it can work on that runtime at all. Default: it can.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with a message that names what must change.
    fn suits(&self, runtime: &RuntimeHandle) -> BackendResult<()> {
        let _ = runtime;
        Ok(())
    }
}

/// What is heard from a [`Backplane`].
#[async_trait]
pub trait Subscription: Send {
    /// The next message; `None` once messages may have been lost: it is then subscribed anew. Must be cancel-safe: a
    /// message is not lost with a future that is dropped.
    async fn next(&mut self) -> Option<Raw>;
}

#[async_trait]
impl<B: Backplane + ?Sized> Backplane for Arc<B> {
    async fn publish(&self, runtime: &RuntimeHandle, message: Raw) -> BackendResult<()> {
        (**self).publish(runtime, message).await
    }

    async fn subscribe(&self, runtime: &RuntimeHandle) -> BackendResult<Box<dyn Subscription>> {
        (**self).subscribe(runtime).await
    }

    fn subscribe_limit(&self) -> Duration {
        (**self).subscribe_limit()
    }

    fn suits(&self, runtime: &RuntimeHandle) -> BackendResult<()> {
        (**self).suits(runtime)
    }
}
