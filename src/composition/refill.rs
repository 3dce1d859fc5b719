//! The refill lane: an actor that writes hits from below, and loaded values, to the tiers that missed them.
//!
//! Nobody waits for it, and it is the first to give way: when its mailbox is full, refills are dropped and counted.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_channel::oneshot;
use futures_util::task::AtomicWaker;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::encode::Coding;
use super::engine::Engine;
use super::route::RouteTier;
use crate::backend::Holds;
use crate::codec::ValueType;
use crate::error::Result;
use crate::key::CacheKey;
use crate::order::Fence;
use crate::runtime::{ActorFactory, ActorSpec, Address, Envelope, Handler, RestartPolicy, RuntimeHandle};
use crate::tier::{Counters, Fill, Message};
use crate::value::{Entry, Meta, Object, Payload};

/// Encodings under way at once; the mailbox holds what comes beyond.
const ENCODING: usize = 64;

/// A value on its way up.
pub(crate) struct Refill {
    pub(crate) key: CacheKey,
    pub(crate) object: Object,
    pub(crate) ty: Arc<dyn ValueType>,
    pub(crate) meta: Meta,
    pub(crate) fence: Fence,
    /// The tiers to write to, by index.
    pub(crate) tiers: Vec<usize>,
}

struct RefillLane {
    engine: Weak<Engine>,
    load: Arc<Load>,
}

/// How many encodings are under way.
#[derive(Default)]
struct Load {
    encoding: AtomicUsize,
    less: AtomicWaker,
}

struct Encoding(Arc<Load>);

impl Drop for Encoding {
    fn drop(&mut self) {
        self.0.encoding.fetch_sub(1, Ordering::SeqCst);
        self.0.less.wake();
    }
}

impl Handler for RefillLane {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.load.less.register(cx.waker());
        if self.load.encoding.load(Ordering::SeqCst) < ENCODING { Poll::Ready(()) } else { Poll::Pending }
    }

    fn handle(&mut self, message: Envelope) {
        let (Ok(mut refill), Some(engine)) = (message.open::<Refill>(), self.engine.upgrade()) else {
            return;
        };
        let route = engine.route.load_full();
        let (ready, others): (Vec<_>, Vec<_>) = std::mem::take(&mut refill.tiers)
            .into_iter()
            .partition(|&index| is_unweighed(&route.tiers[index]));
        for index in ready {
            engine.fill_object(&route.tiers[index], &refill, 0, None);
        }
        refill.tiers = others;
        if !refill.tiers.is_empty() {
            self.load.encoding.fetch_add(1, Ordering::SeqCst);
            let encoding = Encoding(Arc::clone(&self.load));
            let runtime = engine.runtime.clone();
            let engine = Weak::clone(&self.engine);
            runtime.spawn(async move {
                let _encoding = encoding;
                if let Some(engine) = engine.upgrade() {
                    engine.fill_others(&refill).await;
                }
            });
        }
    }
}

/// Starts the lane of an engine that is being built.
pub(super) fn start(runtime: &RuntimeHandle, engine: &Weak<Engine>, capacity: usize) -> Address {
    let engine = Weak::clone(engine);
    let load = Arc::new(Load::default());
    let factory: ActorFactory = Arc::new(move || {
        let lane = RefillLane { engine: Weak::clone(&engine), load: Arc::clone(&load) };
        Box::pin(async move { Ok(Box::new(lane) as Box<dyn Handler>) })
    });
    runtime.spawn_actor(ActorSpec {
        name: "refill".into(),
        capacity,
        restart: RestartPolicy::default(),
        factory,
        watch: Arc::new(|_| {}),
    })
}

impl Engine {
    /// Writes a value that was loaded to every tier: in-process tiers now, so that the next read hits; the others
    /// through the lane.
    pub(crate) async fn fill(&self, mut refill: Refill) {
        if refill.key.is_too_long() {
            return;
        }
        let route = self.route.load_full();
        let (ports, others): (Vec<_>, Vec<_>) = (0..route.tiers.len())
            .filter(|&index| !route.tiers[index].core.options.read_only)
            .partition(|&index| {
                let core = &route.tiers[index].core;
                core.port.is_some() && core.holds != Holds::Bytes
            });
        refill.tiers = ports;
        for &index in &refill.tiers {
            let tier = &route.tiers[index];
            if is_unweighed(tier)
                && self.fill_at_once(tier, &refill.key, &refill.object, refill.meta, refill.fence)
            {
                continue;
            }
            let (done, filled) = oneshot::channel();
            self.fill_tier(index, &refill, Some(done)).await;
            let deadline = self.runtime.now().after(route.tiers[index].core.options.write_deadline);
            // Dropped when done, whichever way.
            let _ = self.runtime.deadline(deadline, filled).await;
        }
        refill.tiers = others;
        if !refill.tiers.is_empty() && self.lane.try_send(Envelope::new(refill)).is_err() {
            self.refills_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Fills the tiers of the lane; those of bytes that share an encoding wait for one.
    async fn fill_others(&self, refill: &Refill) {
        let route = self.route.load_full();
        let tiers: Vec<&RouteTier> = refill.tiers.iter().map(|&index| &route.tiers[index]).collect();
        let codings = self.encode_for(&tiers, &refill.object, &refill.ty).await;
        let now = self.runtime.wall();
        let mut frames: Vec<Option<Entry>> = Vec::with_capacity(tiers.len());
        for (tier, coding) in tiers.iter().zip(codings) {
            let meta = refill.meta.capped(tier.core.ttl_cap(), now);
            frames.push(match coding {
                Some(Coding::Own(encoded)) => {
                    Some(Entry::new(Payload::Bytes(encoded.seal(&refill.key, &meta)), meta))
                }
                Some(Coding::SameAs(twin)) => frames[twin].clone(),
                Some(Coding::Failed(_)) | None => None,
            });
        }
        for ((&index, tier), frame) in refill.tiers.iter().zip(&tiers).zip(frames) {
            match frame {
                Some(entry) => send_fill(tier, refill, entry, None),
                None if tier.core.holds == Holds::Bytes => Counters::one(&tier.core.counters.fills_dropped),
                None => self.fill_tier(index, refill, None).await,
            }
        }
    }

    /// Fills a tier of objects.
    async fn fill_tier(&self, index: usize, refill: &Refill, done: Option<oneshot::Sender<()>>) {
        let route = self.route.load_full();
        let tier = &route.tiers[index];
        if is_unweighed(tier) {
            return self.fill_object(tier, refill, 0, done);
        }
        match self.weigh(&refill.object, &refill.ty).await {
            Ok(weight) => self.fill_object(tier, refill, weight, done),
            Err(_) => Counters::one(&tier.core.counters.fills_dropped),
        }
    }

    fn fill_object(&self, tier: &RouteTier, refill: &Refill, weight: u32, done: Option<oneshot::Sender<()>>) {
        let meta = refill.meta.capped(tier.core.ttl_cap(), self.runtime.wall());
        let payload = Payload::Object(Arc::clone(&refill.object), weight);
        send_fill(tier, refill, Entry::new(payload, meta), done);
    }

    /// Fills a tier in the caller's own task; `false` if it has to go through the tier's mailbox.
    pub(super) fn fill_at_once(
        &self,
        tier: &RouteTier,
        key: &CacheKey,
        object: &Object,
        meta: Meta,
        fence: Fence,
    ) -> bool {
        let meta = meta.capped(tier.core.ttl_cap(), self.runtime.wall());
        let entry = Entry::new(Payload::Object(Arc::clone(object), 0), meta);
        tier.core.fill_at_once(Fill { key: key.clone(), entry, fence, done: None }).is_none()
    }

    /// What a value weighs in a tier bounded by bytes; a large one is weighed on the pool.
    pub(super) async fn weigh(&self, object: &Object, ty: &Arc<dyn ValueType>) -> Result<u32> {
        self.codecs.weigh(Arc::clone(object), Arc::clone(ty)).await
    }
}

/// Whether nobody asks what a value weighs in this tier.
pub(super) fn is_unweighed(tier: &RouteTier) -> bool {
    tier.core.holds == Holds::Objects { weighed: false } && tier.core.options.max_value.is_none()
}

/// Whether a value is larger than the tier wants it.
pub(super) fn is_oversized(tier: &RouteTier, payload: &Payload) -> bool {
    tier.core.options.max_value.is_some_and(|most| payload.weight() > most)
}

fn send_fill(tier: &RouteTier, refill: &Refill, entry: Entry, done: Option<oneshot::Sender<()>>) {
    if is_oversized(tier, &entry.payload) {
        return Counters::one(&tier.core.counters.oversized);
    }
    let fill = Fill { key: refill.key.clone(), entry, fence: refill.fence, done };
    if tier.address.try_send(Envelope::new(Message::Fill(fill))).is_err() {
        Counters::one(&tier.core.counters.fills_dropped);
    }
}
