//! What the engine does about what it hears.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;

use super::link::Link;
use super::packet::{Action, Note};
use super::status::{DropCause, Status};
use crate::backend::Scope;
use crate::composition::{Engine, RouteTier};
use crate::key::CacheKey;
use crate::observe::EventKind;
use crate::planted::{Plant, planted};
use crate::runtime::RuntimeHandle;

/// A stamp further ahead than this is not believed: recorded as a clear, it would hide what is written for as long.
const BELIEVED: Duration = Duration::from_secs(60);

impl Engine {
    /// Another process has changed the shared store.
    pub(super) fn hear(&self, link: &Arc<Link>, note: Note) {
        let now = self.runtime.wall();
        self.order.clock.observe(note.stamp, now);
        match note.action {
            Action::Invalidate(text) | Action::Remove(text) => match CacheKey::parse(&text) {
                Some(key) => Status::add(&link.status.dropped, self.drop_older(&key, note.stamp)),
                None => self.drop_unshared(link, DropCause::Unreadable),
            },
            Action::Clear(region) if note.stamp.wall() <= now.after(BELIEVED) => {
                let scope = region.map_or(Scope::All, |region| Scope::Prefix(region.into()));
                // Nothing is deleted: what the clear hides goes as it expires.
                let busy = self.order.fences.begin_all();
                self.order.clears.record(&scope, note.stamp);
                self.flights.detach_scope(&scope);
                drop(busy);
                #[cfg(feature = "zstd")]
                if scope == Scope::All {
                    self.codecs.dictionaries().forgotten();
                }
            }
            Action::Clear(_) | Action::Resync => self.drop_unshared(link, DropCause::Resync),
        }
    }

    /// Something may have been missed: what the unshared tiers hold may be old. They drop it all, after a random while,
    /// and once for everything that comes meanwhile.
    pub(super) fn drop_unshared(&self, link: &Arc<Link>, cause: DropCause) {
        if planted(Plant::GapIgnored) || link.dropping.swap(true, Ordering::SeqCst) {
            return;
        }
        let (engine, link, runtime) = (self.weak(), Arc::clone(link), self.runtime.clone());
        let wait = spread(&runtime, link.options.jitter);
        self.runtime.spawn(async move {
            runtime.sleep(wait).await;
            // Before it begins: what is missed from here on is dropped by another one.
            link.dropping.store(false, Ordering::SeqCst);
            if let Some(engine) = engine.upgrade() {
                link.status.drops_all(cause);
                let unshared = engine.route.load_full();
                // What a tier on disk brought along is bounded by its cap, in any case.
                let fresh = cause == DropCause::Stranger && link.is_fresh();
                let concerned = |tier: &&RouteTier| !tier.core.shared && (tier.core.port.is_some() || !fresh);
                let unshared: Vec<_> = unshared.written.iter().filter(concerned).collect();
                let _busy = engine.order.fences.begin_all();
                engine.flights.detach_scope(&Scope::All);
                let stamp = engine.order.clock.mint(engine.runtime.wall());
                join_all(unshared.iter().map(|tier| tier.core.drop_all(stamp))).await;
                unshared.iter().for_each(|tier| tier.core.tell(EventKind::DroppedAll { cause }));
            }
        });
    }

    /// Whether every other process is heard from now on.
    pub(super) fn backplane_covers(&self, covered: bool) {
        self.route.load().written.iter().for_each(|tier| tier.core.follow_backplane(covered));
    }

    /// It hears from now on, or no longer.
    pub(super) fn backplane_changed(&self, up: bool) {
        for tier in self.route.load().written.iter() {
            if tier.core.shared {
                tier.core.tell(if up { EventKind::BackplaneUp } else { EventKind::BackplaneDown });
            }
        }
    }
}

/// A random part of `most`.
fn spread(runtime: &RuntimeHandle, most: Duration) -> Duration {
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(runtime.random() % nanos.saturating_add(1).max(1))
}
