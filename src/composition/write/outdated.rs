//! Another process wrote a key later: what the other tiers have of it goes.

use std::sync::Arc;

use super::super::engine::Engine;
use super::super::route::RouteTier;
use crate::key::CacheKey;
use crate::order::Write;
#[cfg(feature = "backplane")]
use crate::planted::{Plant, planted};
#[cfg(feature = "backplane")]
use crate::runtime::Envelope;
#[cfg(feature = "backplane")]
use crate::tier::Message;
use crate::tier::{Change, Mutation, TierCore};
use crate::value::Stamp;

impl Engine {
    /// Another process wrote the key later, as the store of `newer` says: the other tiers drop the key at once, and what
    /// is on its way to them is void. Those that compare are told the same by their stores.
    pub(in crate::composition) fn drop_outdated(&self, newer: &TierCore, key: &CacheKey) {
        let route = self.route.load_full();
        let is_older =
            |tier: &&RouteTier| !std::ptr::eq(Arc::as_ptr(&tier.core), newer) && !tier.core.compares;
        let older: Vec<_> = route.written.iter().filter(is_older).collect();
        // Without a port, the key is in quarantine until it is removed.
        self.drop_key(key, &older, |_, mutation| drop(mutation));
    }

    /// Another process says that it wrote the key with this stamp, and that the shared store has it: the other tiers
    /// drop what they hold of it that is older. Returns how many may hold some.
    #[cfg(feature = "backplane")]
    pub(crate) fn drop_older(&self, key: &CacheKey, stamp: Stamp) -> u64 {
        if planted(Plant::HeardIgnored) {
            return 0;
        }
        let route = self.route.load_full();
        // First of all: what was read below before is void from here on.
        drop(self.order.fences.begin(key.hash_u64()));
        self.flights.detach(key);
        for tier in route.tiers.iter().filter(|tier| tier.core.options.read_only || !tier.core.authoritative)
        {
            tier.core.overrule(key, just_before(stamp));
        }
        let holds_older = |tier: &&RouteTier| !tier.core.shared && tier.core.may_hold_older(key, stamp);
        let older: Vec<_> = route.written.iter().filter(holds_older).collect();
        if !older.is_empty() {
            self.drop_key(key, &older, |tier, mutation| {
                // Without room for it, the key is in quarantine until it is removed.
                drop(tier.address.try_send(Envelope::new(Message::Mutate(mutation))));
            });
        }
        older.len() as u64
    }

    /// Removes a key from some tiers, without waiting: from those with a port at once, from others `by` some other way.
    fn drop_key(&self, key: &CacheKey, tiers: &[&RouteTier], by: impl Fn(&RouteTier, Mutation)) {
        for tier in tiers {
            tier.core.announce(key);
        }
        let write = Write::begin(&self.order, &self.runtime, key);
        self.flights.detach(key);
        let now = self.runtime.now();
        for tier in tiers {
            let deadline = now.after(tier.core.options.write_deadline);
            let (mutation, _) = Mutation::new(&tier.core, &write, Change::Remove, deadline);
            if tier.core.port.is_some() {
                tier.core.arrive_at_once(mutation);
            } else {
                by(tier, mutation);
            }
        }
    }
}

/// What is older than this is older than `stamp`, and its own entry is not.
pub(super) fn just_before(stamp: Stamp) -> Stamp {
    Stamp { time: stamp.time.saturating_sub(1), ..stamp }
}
