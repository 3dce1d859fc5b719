//! The engine of one cache: its tiers, their order, and the way through them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use event_listener::Event;

use super::at_once::{Queueing, is_plain, queueing};
use super::compose::Composition;
use super::policy::{ReadPolicy, RefillPolicy, WritePolicy};
use super::route::{Route, RouteTier};
use super::{refill, supervisor};
use crate::backend::Holds;
#[cfg(feature = "backplane")]
use crate::backplane::Link;
use crate::codec::{CodecOptions, Codecs};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{CacheKey, KeyProbe};
use crate::load::Flights;
use crate::observe::Telling;
use crate::order::Order;
use crate::runtime::{ActorState, Address, Envelope, Instant, RuntimeHandle};
use crate::tier::{Message, Surroundings, TierCore};
use crate::value::Stamp;

/// How often metrics are published.
const PUBLISH: Duration = Duration::from_secs(1);

/// How long a build waits until the backplane hears.
#[cfg(feature = "backplane")]
const FIRST_HEARING: Duration = Duration::from_secs(1);

/// What an engine is built with, besides its tiers.
#[derive(Debug, Clone)]
pub(crate) struct EngineOptions {
    pub(crate) codec: CodecOptions,
    pub(crate) stripes: usize,
    pub(crate) refill_lane: usize,
    /// Tells caches of one process apart.
    pub(crate) name: Arc<str>,
    pub(crate) hot_keys: bool,
    #[cfg(feature = "backplane")]
    pub(crate) backplane: crate::backplane::Chosen,
}

impl Default for EngineOptions {
    fn default() -> Self {
        let codec = CodecOptions::default();
        Self {
            codec,
            stripes: 4096,
            refill_lane: 1024,
            name: "cache".into(),
            hot_keys: false,
            #[cfg(feature = "backplane")]
            backplane: Default::default(),
        }
    }
}

pub(crate) struct Engine {
    pub(crate) runtime: RuntimeHandle,
    pub(crate) order: Arc<Order>,
    pub(crate) codecs: Arc<Codecs>,
    pub(crate) flights: Flights,
    pub(crate) route: ArcSwap<Route>,
    /// The tiers of every route: they stay, and only which of them serve is published anew.
    pub(crate) cores: Box<[Arc<TierCore>]>,
    /// Whether every tier is in process and takes any value as it is.
    pub(super) plain: bool,
    /// How values are queued, if every tier is in process or writes behind.
    pub(super) queueing: Option<Queueing>,
    pub(crate) read_policy: ReadPolicy,
    pub(crate) write_policy: WritePolicy,
    pub(crate) refill_policy: RefillPolicy,
    pub(crate) supervisor: Address,
    pub(crate) lane: Address,
    pub(crate) refills_dropped: AtomicU64,
    pub(crate) name: Arc<str>,
    pub(crate) telling: Telling,
    #[cfg(feature = "backplane")]
    pub(crate) link: Option<Arc<crate::backplane::Link>>,
    #[cfg(feature = "backplane")]
    this: Weak<Self>,
    closed: AtomicBool,
    health: Event,
}

/// Carries what a tier's store says to the other tiers and to the backplane.
struct Around(Weak<Engine>);

impl Surroundings for Around {
    fn outdated(&self, core: &TierCore, key: &CacheKey) {
        if let Some(engine) = self.0.upgrade() {
            engine.drop_outdated(core, key);
        }
    }

    fn confirmed(&self, key: &CacheKey, stamp: Stamp, removed: bool) {
        #[cfg(feature = "backplane")]
        if let Some(engine) = self.0.upgrade()
            && let Some(link) = &engine.link
        {
            link.tell(key, stamp, removed);
        }
        let _ = (key, stamp, removed);
    }
}

impl Engine {
    /// Starts the actors of a validated composition and waits until each tier is up, or has failed once, or its open
    /// deadline is over.
    pub(crate) async fn start(
        runtime: RuntimeHandle,
        composition: Composition,
        options: EngineOptions,
    ) -> Result<Arc<Self>> {
        let engine = Self::assemble(runtime, composition, options)?;
        for tier in &engine.route.load_full().written {
            tier.core.open_behind().await?;
        }
        #[cfg(feature = "backplane")]
        let heard_by = engine.runtime.now().after(FIRST_HEARING);
        #[cfg(feature = "backplane")]
        if let Some(link) = &engine.link {
            link.start(&engine.this, &engine.runtime);
        }
        engine.await_tiers().await?;
        #[cfg(feature = "backplane")]
        if let Some(link) = &engine.link {
            // What is read before it hears may be replaced unheard: it is dropped then.
            link.await_up(&engine.runtime, heard_by).await;
        }
        engine.runtime.spawn(tend(Arc::downgrade(&engine), engine.runtime.clone()));
        Ok(engine)
    }

    /// Starts the actors and waits for nothing.
    pub(crate) fn assemble(
        runtime: RuntimeHandle,
        composition: Composition,
        options: EngineOptions,
    ) -> Result<Arc<Self>> {
        let telling = Telling::new(&runtime, &options.name, options.hot_keys);
        let codecs = Codecs::told(options.codec, &runtime, telling.meter.codec(&runtime))?;
        for tier in &composition.tiers {
            if tier.backend.holds() == Holds::Bytes {
                codecs
                    .accepts(tier.backend.value_format(), tier.backend.compressor())
                    .map_err(|error| error.at_tier(&tier.label))?;
            }
        }
        let order = Arc::new(Order::new(&runtime, options.stripes));
        let core = |tier| TierCore::new(tier, &runtime, &order, &telling);
        let cores: Vec<_> = composition.tiers.into_iter().map(core).collect();
        #[cfg(feature = "backplane")]
        let link = match options.backplane.transport {
            Some(transport) => Some(Link::new(transport, options.backplane.options, &runtime)?),
            None => None,
        };
        Ok(Arc::new_cyclic(|this| {
            for core in &cores {
                core.surround(Around(Weak::clone(this)));
            }
            let supervisor = supervisor::start(&runtime, this);
            let tiers = cores
                .iter()
                .map(|core| RouteTier {
                    core: Arc::clone(core),
                    address: supervisor::start_tier(core, &supervisor, this),
                    serving: true,
                })
                .collect();
            Self {
                lane: refill::start(&runtime, this, options.refill_lane),
                supervisor,
                runtime,
                order,
                codecs,
                flights: Flights::default(),
                route: ArcSwap::from_pointee(Route::new(tiers)),
                plain: !cores.is_empty() && cores.iter().all(|core| is_plain(core)),
                queueing: queueing(&cores),
                cores: cores.into(),
                read_policy: composition.policy.read,
                write_policy: composition.policy.write,
                refill_policy: composition.policy.refill,
                refills_dropped: AtomicU64::new(0),
                name: options.name,
                telling,
                #[cfg(feature = "backplane")]
                link,
                #[cfg(feature = "backplane")]
                this: Weak::clone(this),
                closed: AtomicBool::new(false),
                health: Event::new(),
            }
        }))
    }

    async fn await_tiers(&self) -> Result<()> {
        let route = self.route.load_full();
        // One beginning for all: they open at the same time, and so do their deadlines pass.
        let began = self.runtime.now();
        for tier in &route.tiers {
            let deadline = began.after(tier.core.options.open_deadline);
            let settled = || {
                let health = tier.core.health();
                health.state != ActorState::Starting || health.last_error.is_some()
            };
            self.wait_health(deadline, settled).await;
            let health = tier.core.health();
            if tier.core.options.required && health.state != ActorState::Running {
                let error = Error::new(ErrorKind::Unavailable, "a required tier did not come up")
                    .at_tier(&tier.core.label);
                return Err(match health.last_error {
                    Some(cause) => error.with_source(cause),
                    None => error,
                });
            }
        }
        Ok(())
    }

    /// Waits until `settled`, which depends on the tiers' health, or `deadline`.
    async fn wait_health(&self, deadline: Instant, settled: impl Fn() -> bool) {
        loop {
            let changed = self.health.listen();
            if settled() || self.runtime.deadline(deadline, changed).await.is_none() {
                return;
            }
        }
    }

    /// A tier's actor changed its state.
    pub(super) fn health_changed(&self) {
        self.health.notify(usize::MAX);
    }

    /// Publishes which tiers serve.
    pub(super) fn publish_route(&self) {
        self.route.rcu(|route| {
            let tiers = route.tiers.iter().map(|tier| RouteTier {
                serving: !matches!(tier.core.health().state, ActorState::Down | ActorState::Stopped),
                ..tier.clone()
            });
            Route::new(tiers.collect())
        });
    }

    /// A caller reads a key: for the sample of hot keys, if one is taken.
    #[inline]
    pub(crate) fn note_read(&self, key: &KeyProbe<'_>) {
        if let Some(hot_keys) = &self.telling.hot_keys {
            hot_keys.note(key);
        }
    }

    /// Itself, for tasks that must not keep it alive.
    #[cfg(feature = "backplane")]
    pub(crate) fn weak(&self) -> Weak<Self> {
        Weak::clone(&self.this)
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Refuses calls from here on; returns whether they were refused already.
    pub(super) fn close(&self) -> bool {
        self.closed.swap(true, Ordering::SeqCst)
    }

    /// # Errors
    /// [`ErrorKind::Closed`] after shutdown.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() {
            return Err(Error::new(ErrorKind::Closed, "the cache has been shut down"));
        }
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Without a shutdown, what is queued is still handled; nobody waits for it.
        self.lane.kill();
        for tier in &self.route.load().tiers {
            tier.address.stop();
        }
        self.supervisor.stop();
    }
}

/// Now and then has the tiers' actors delete what has expired, and publishes what was counted.
async fn tend(engine: Weak<Engine>, runtime: RuntimeHandle) {
    loop {
        let interval = {
            let Some(engine) = engine.upgrade() else { return };
            let route = engine.route.load_full();
            if engine.is_closed() && route.written.iter().all(|tier| tier.core.is_retired()) {
                // The shutdown has published how it all ended.
                return;
            }
            let swept: Vec<_> = route.written.iter().filter(|tier| tier.core.port.is_some()).collect();
            for tier in &swept {
                // A full mailbox has better things to do.
                let _ = tier.address.try_send(Envelope::new(Message::Sweep));
            }
            // The recorder is the user's: its panic must not end the sweeping.
            let _ = catch_unwind(AssertUnwindSafe(|| engine.telling.meter.publish(&engine)));
            let publish = cfg!(feature = "metrics").then_some(PUBLISH);
            swept.iter().map(|tier| tier.core.options.sweep_interval).chain(publish).min()
        };
        // Without a tier to sweep or metrics to publish there is nothing to come back for.
        let Some(interval) = interval else { return };
        runtime.sleep(interval.max(Duration::from_millis(1))).await;
    }
}
