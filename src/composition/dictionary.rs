//! Dictionaries in the tiers: trained beside the executor, stored below a reserved key, and loaded when an entry needs
//! one that is not known.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::engine::Engine;
use super::read::{Held, Usable};
use super::route::RouteTier;
use crate::backend::Holds;
use crate::codec::{Encoded, Header, MAX_DICTIONARY, RegionDictionary, ZstdDictionary};
use crate::error::Result;
use crate::key::{CacheKey, KeyPart};
use crate::load::Role;
use crate::order::Write;
use crate::tier::Change;
use crate::value::{Entry, Meta, Payload};

/// The prefix of the keys that dictionaries are stored under; no region may have this name.
pub(crate) const PREFIX: &str = "tierkeep-dictionary";

impl Engine {
    /// After a write of an entry with this life: begins a training that is due, and stores the dictionary where it is
    /// time. Waits for neither.
    pub(crate) fn tend_dictionary(self: &Arc<Self>, region: &Arc<RegionDictionary>, life: &Meta) {
        region.written_for(life.kept_until().map(|until| until.since(life.created)));
        if region.is_due() {
            self.train(region);
        } else if let Some((dictionary, kept)) = region.to_publish(self.runtime.wall()) {
            let engine = Arc::downgrade(self);
            self.runtime.spawn(async move {
                if let Some(engine) = engine.upgrade() {
                    engine.publish(&dictionary, kept).await;
                }
            });
        }
    }

    /// Trains on the blocking pool, one dictionary at a time and beside the codec's workers: it would keep one of them
    /// for long.
    fn train(self: &Arc<Self>, region: &Arc<RegionDictionary>) {
        let dictionaries = Arc::clone(self.codecs.dictionaries());
        if dictionaries.training.swap(true, Ordering::AcqRel) {
            return; // the next write tries again
        }
        let Some(samples) = region.take_samples() else {
            return dictionaries.training.store(false, Ordering::Release);
        };
        let (engine, region) = (Arc::downgrade(self), Arc::clone(region));
        let trainer = Arc::clone(&region);
        let training = self.runtime.spawn_blocking(move || trainer.train(&samples));
        self.runtime.spawn(async move {
            let trained = training.await;
            dictionaries.training.store(false, Ordering::Release);
            match (trained, engine.upgrade()) {
                (Ok(Ok(Some(trained))), Some(engine)) => {
                    dictionaries.add(&trained.dictionary);
                    // Before the first entry is written with it: who finds the entry finds the dictionary.
                    let kept = region.publish(engine.runtime.wall());
                    engine.publish(&trained.dictionary, kept).await;
                    region.adopt(trained);
                }
                // Nothing better, nothing in common, or a panic in the trainer.
                _ => region.in_vain(),
            }
        });
    }

    /// Stores a dictionary in every tier that uses it. A tier that does not take it is repaired like any other.
    async fn publish(&self, dictionary: &ZstdDictionary, kept: Duration) {
        if self.check_open().is_err() {
            return;
        }
        let route = self.route.load_full();
        let now = self.runtime.wall();
        let expire = Some(now.after(kept));
        let frame = |write: &Write<'_>| {
            let meta = Meta { stamp: write.stamp, created: now, expire, ..Meta::default() };
            (Encoded::raw(dictionary.as_bytes()).seal(write.key, &meta), meta)
        };
        let key = key(dictionary.id());
        let changes = |write: &Write<'_>| {
            let (frame, meta) = frame(write);
            let change = |tier: &RouteTier| match tier.core.holds {
                Holds::Bytes if tier.core.backend.compressor().id() == ZSTD => {
                    Change::Set(Entry::new(Payload::Bytes(frame.clone()), meta))
                }
                _ => Change::Remove,
            };
            route.written.iter().map(|tier| (change(tier), None)).collect()
        };
        let (write, mutations) = self.begin(&route, &key, changes);
        self.write_all(mutations).await;
        drop(write);
    }

    /// Sees to it that the dictionary of an entry is known, as far as the tier that has the entry has it too.
    pub(super) async fn find_dictionary(
        &self,
        tier: &RouteTier,
        header: &Header,
        region: Option<&Arc<RegionDictionary>>,
    ) {
        let (dictionaries, id) = (self.codecs.dictionaries(), header.dictionary);
        if id == 0 || header.compressor != ZSTD || dictionaries.knows(id) || self.codecs.is_registered(header)
        {
            return;
        }
        let (key, mut over) = (key(id), false);
        while !dictionaries.knows(id) {
            if over || !dictionaries.is_wanted(id, self.runtime.now()) {
                dictionaries.unknown.fetch_add(1, Ordering::Relaxed);
                return;
            }
            // Those who come together after a start all lack it: one of them loads it. What lands says that this is over,
            // well or not: a tier that failed is not asked once by each.
            over = match self.flights.enter(&key) {
                Role::Lead(lead) => {
                    if !dictionaries.knows(id) {
                        self.look_for_dictionary(tier, &key, id, region).await;
                    }
                    lead.land(Ok((Arc::new(()), Meta::default())));
                    true
                }
                Role::Join(flight) => flight.wait().await.is_some(),
            };
        }
    }

    async fn look_for_dictionary(
        &self,
        tier: &RouteTier,
        key: &CacheKey,
        id: u32,
        region: Option<&Arc<RegionDictionary>>,
    ) {
        let dictionaries = self.codecs.dictionaries();
        match self.load_dictionary(tier, key, id).await {
            Ok(Some((dictionary, kept))) => {
                dictionaries.add(&dictionary);
                dictionaries.loaded.fetch_add(1, Ordering::Relaxed);
                if let Some(region) = region {
                    region.found(&dictionary, kept);
                }
            }
            // A tier that cannot answer now may have it.
            Err(_) => {}
            Ok(None) => dictionaries.is_missing(id, self.runtime.now()),
        }
    }

    /// The dictionary with this id in a tier, and for how long that still keeps it. What is not one, or another one, is
    /// as good as none.
    async fn load_dictionary(
        &self,
        tier: &RouteTier,
        key: &CacheKey,
        id: u32,
    ) -> Result<Option<(ZstdDictionary, Option<Duration>)>> {
        let Some(entry) = self.fetch(tier, key).await?? else { return Ok(None) };
        let Ok(Some(Usable { meta, now, held: Held::Frame(header, payload) })) =
            self.usable(tier, key, entry)
        else {
            return Ok(None);
        };
        if header.compressor != 0 || payload.len() > MAX_DICTIONARY {
            return Ok(None);
        }
        let kept = meta.kept_until().map(|until| until.since(now));
        // Digesting it takes a while.
        let digest = move || header.verify(&payload).and_then(|()| ZstdDictionary::new(payload));
        let dictionary = self.codecs.run(digest).await?;
        Ok(dictionary.ok().filter(|dictionary| dictionary.id() == id).map(|dictionary| (dictionary, kept)))
    }
}

/// The id of zstd in frames.
const ZSTD: u8 = 2;

fn key(id: u32) -> CacheKey {
    CacheKey::new(PREFIX, 1, [KeyPart::new("id", Some(format!("{id:08x}")))])
}
