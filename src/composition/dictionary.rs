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
use crate::order::Write;
use crate::tier::Change;
use crate::value::{Entry, Meta, Payload};

/// The prefix of the keys that dictionaries are stored under; no region may have this name.
pub(crate) const PREFIX: &str = "tierkeep-dictionary";

/// How long a stored dictionary lives unless it is stored again, which it is every so many values while it is in use.
const LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Engine {
    /// After a write: begins a training that is due, and stores the dictionary where it is time. Waits for neither.
    pub(crate) fn tend_dictionary(self: &Arc<Self>, region: &Arc<RegionDictionary>) {
        if region.is_due() {
            self.train(region);
        } else if region.is_unpublished()
            && let Some(dictionary) = region.to_publish()
        {
            let engine = Arc::downgrade(self);
            self.runtime.spawn(async move {
                if let Some(engine) = engine.upgrade() {
                    engine.publish(&dictionary).await;
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
                    region.published();
                    engine.publish(&trained.dictionary).await;
                    region.adopt(trained);
                }
                // Nothing better, nothing in common, or a panic in the trainer.
                _ => region.in_vain(),
            }
        });
    }

    /// Stores a dictionary in every tier that uses it. One that fails to take it may have to forget its entries after a restart.
    async fn publish(&self, dictionary: &ZstdDictionary) {
        if self.check_open().is_err() {
            return;
        }
        let route = self.route.load_full();
        let now = self.runtime.wall();
        let expire = Some(now.after(LIFE));
        let frame = |write: &Write| {
            let meta = Meta { stamp: write.stamp, created: now, expire, ..Meta::default() };
            (Encoded::raw(dictionary.as_bytes()).seal(&write.key, &meta), meta)
        };
        let key = key(dictionary.id());
        let changes = |write: &Write| {
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
        if dictionaries.is_wanted(id, self.runtime.now()) {
            match self.load_dictionary(tier, id).await {
                Ok(Some(dictionary)) => {
                    dictionaries.add(&dictionary);
                    dictionaries.loaded.fetch_add(1, Ordering::Relaxed);
                    if let Some(region) = region {
                        region.found(&dictionary);
                    }
                    return;
                }
                // A tier that cannot answer now may have it.
                Err(_) => {}
                Ok(None) => dictionaries.is_missing(id, self.runtime.now()),
            }
        }
        dictionaries.unknown.fetch_add(1, Ordering::Relaxed);
    }

    /// The dictionary with this id in a tier. What is not one, or another one, is as good as none.
    async fn load_dictionary(&self, tier: &RouteTier, id: u32) -> Result<Option<ZstdDictionary>> {
        let key = key(id);
        let Some(entry) = self.fetch(tier, &key).await?? else { return Ok(None) };
        let held = match self.usable(tier, &key, entry) {
            Ok(Some(Usable { held: Held::Frame(header, payload), .. })) => (header, payload),
            _ => return Ok(None),
        };
        let (header, payload) = held;
        if header.compressor != 0 || payload.len() > MAX_DICTIONARY {
            return Ok(None);
        }
        // Digesting it takes a while.
        let digest = move || header.verify(&payload).and_then(|()| ZstdDictionary::new(payload));
        let dictionary = self.codecs.run(digest).await?;
        Ok(dictionary.ok().filter(|dictionary| dictionary.id() == id))
    }
}

/// The id of zstd in frames.
const ZSTD: u8 = 2;

fn key(id: u32) -> CacheKey {
    CacheKey::new(PREFIX, 1, [KeyPart::new("id", Some(format!("{id:08x}")))])
}
