//! The dictionaries that a cache knows for reading, and the regions that train their own.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::dictionary::ZstdDictionary;
use super::dictionary_options::{DictionaryInspection, DictionaryOptions};
use super::training::RegionDictionary;
use crate::runtime::Instant;

/// Ids that are remembered as not to be had, at most.
const MISSING: usize = 64;

/// For how long a dictionary that was not found is not looked for again.
const PAUSE: Duration = Duration::from_secs(10);

/// What a cache knows of dictionaries.
pub(crate) struct Dictionaries {
    most: usize,
    /// By id. Read with every value that was written with one, changed hardly ever.
    known: ArcSwap<HashMap<u32, ZstdDictionary>>,
    state: Mutex<State>,
    /// Whether a dictionary is being trained: one at a time.
    pub(crate) training: AtomicBool,
    pub(crate) loaded: AtomicU64,
    pub(crate) unknown: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Ids of the known ones, the oldest first.
    order: VecDeque<u32>,
    missing: VecDeque<(u32, Instant)>,
    /// By the region's name and version.
    regions: HashMap<Arc<str>, Arc<RegionDictionary>>,
}

impl Dictionaries {
    /// Keeps up to `most` for reading.
    pub(super) fn new(most: usize, given: &[ZstdDictionary]) -> Self {
        let this = Self {
            most: most.max(1),
            known: ArcSwap::default(),
            state: Mutex::default(),
            training: AtomicBool::new(false),
            loaded: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        };
        given.iter().for_each(|dictionary| this.add(dictionary));
        this
    }

    pub(super) fn get(&self, id: u32) -> Option<ZstdDictionary> {
        self.known.load().get(&id).cloned()
    }

    pub(crate) fn knows(&self, id: u32) -> bool {
        self.known.load().contains_key(&id)
    }

    /// Makes a dictionary known; the one that has been known longest gives way to it. What is still needed of that is
    /// loaded again.
    pub(crate) fn add(&self, dictionary: &ZstdDictionary) {
        let mut state = self.state();
        let mut known = HashMap::clone(&self.known.load());
        if known.insert(dictionary.id(), dictionary.clone()).is_some() {
            state.order.retain(|&id| id != dictionary.id());
        }
        state.order.push_back(dictionary.id());
        state.missing.retain(|&(id, _)| id != dictionary.id());
        while state.order.len() > self.most {
            state.order.pop_front().map(|oldest| known.remove(&oldest));
        }
        self.known.store(Arc::new(known));
    }

    /// Whether it is worth looking for a dictionary at `now`: not if that was in vain a moment ago.
    pub(crate) fn is_wanted(&self, id: u32, now: Instant) -> bool {
        let mut state = self.state();
        state.missing.retain(|&(_, at)| now.since(at) < PAUSE);
        !state.missing.iter().any(|&(missing, _)| missing == id)
    }

    /// A dictionary was looked for at `now`, and is not there.
    pub(crate) fn is_missing(&self, id: u32, now: Instant) {
        let mut state = self.state();
        if state.missing.len() >= MISSING {
            state.missing.pop_front();
        }
        state.missing.push_back((id, now));
    }

    /// What all openings of a region (by name and version) share. The first one's options hold.
    pub(crate) fn of_region(&self, region: &str, options: DictionaryOptions) -> Arc<RegionDictionary> {
        if let Some(dictionary) = &options.start {
            self.add(dictionary);
        }
        let make = || Arc::new(RegionDictionary::new(region, options));
        Arc::clone(self.state().regions.entry(region.into()).or_insert_with(make))
    }

    /// The tiers have lost what was stored in them: to be stored again.
    pub(crate) fn forgotten(&self) {
        self.state().regions.values().for_each(|region| region.unpublished());
    }

    pub(crate) fn inspect(&self) -> Vec<DictionaryInspection> {
        let mut regions: Vec<_> = self.state().regions.values().map(|region| region.inspect()).collect();
        regions.sort_by(|a, b| a.region.cmp(&b.region));
        regions
    }

    pub(super) fn count(&self) -> (usize, u64, u64) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (self.known.load().len(), get(&self.loaded), get(&self.unknown))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_known_longest_gives_way() {
        let made: Vec<_> =
            (0..4).map(|n| ZstdDictionary::new(format!("dictionary {n}").into_bytes()).unwrap()).collect();
        let known = Dictionaries::new(2, &made[..2]);
        known.add(&made[0]);
        known.add(&made[2]);
        let has = |n: usize| known.get(made[n].id()).is_some();
        assert_eq!([has(0), has(1), has(2), has(3)], [true, false, true, false]);
    }

    #[test]
    fn what_was_not_found_is_not_looked_for_again_at_once() {
        let known = Dictionaries::new(2, &[]);
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        assert!(known.is_wanted(7, at(1)));
        known.is_missing(7, at(1));
        assert!(!known.is_wanted(7, at(2)));
        assert!(known.is_wanted(8, at(2)));
        assert!(known.is_wanted(7, at(12)));
        (0..1_000).for_each(|id| known.is_missing(id, at(20)));
        assert_eq!(known.state().missing.len(), MISSING);
    }
}
