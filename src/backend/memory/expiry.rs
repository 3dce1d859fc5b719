//! Which entry expires when, so that a sweep touches only what is due.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::value::Timestamp;

/// Where an entry stands in the index: its mark, and its key's hash by which it is found again.
///
/// The mark is the time it is due (48 bits of milliseconds) and the number of the put that stored it (16 bits), so that
/// puts of one key stand apart. Sixteen bytes an entry: with the key in full the index would be a quarter of what an
/// entry costs. Should two entries share both, one of them is not swept: it is as expired, and waits to be evicted.
pub(super) type Due = (u64, u64);

/// When it is due, and which put stored it.
pub(super) fn mark(at: Timestamp, put: u16) -> u64 {
    // Year 10889 is the latest time that has a sweep.
    at.as_millis().min((1 << 48) - 1) << 16 | u64::from(put)
}

/// The entries that expire, by time. Touched by mutations only, never by reads.
///
/// A put enters its due time before its entry becomes visible in the map, and whoever takes an entry out of the map
/// takes out its due time afterwards. So every entry that expires is in the index, and what is in the index beyond
/// the entries are only mutations in progress: it cannot outgrow the map, however threads interleave.
///
/// In parts, by hash, which several threads seldom need at once.
#[derive(Debug, Default)]
pub(super) struct ExpiryIndex([Part; PARTS]);

/// A power of two.
const PARTS: usize = 16;

/// In a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part(Mutex<Runs>);

impl ExpiryIndex {
    pub(super) fn insert(&self, due: Due) {
        self.part(due).lock().insert(due);
    }

    pub(super) fn remove(&self, due: impl IntoIterator<Item = Due>) {
        for due in due {
            self.part(due).lock().remove(due);
        }
    }

    /// Takes out up to `limit` of what is due at `now`, the earliest first.
    pub(super) fn take_due(&self, now: Timestamp, limit: usize) -> Vec<Due> {
        // All at once, always in this order; puts need one at a time.
        let mut parts: Vec<_> = self.0.iter().map(Part::lock).collect();
        let mut taken = Vec::new();
        while taken.len() < limit {
            let due = |part: &Runs| part.first().filter(|due| due.0 <= mark(now, u16::MAX));
            let earliest =
                parts.iter_mut().filter_map(|part| Some((due(part)?, part))).min_by_key(|(due, _)| *due);
            let Some((due, part)) = earliest else { break };
            part.remove(due);
            taken.push(due);
        }
        taken
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|part| part.lock().0.values().map(VecDeque::len).sum::<usize>()).sum()
    }

    fn part(&self, due: Due) -> &Part {
        // Bits in the middle: maps keyed by the same hash use those at either end.
        let part = (due.1 >> 24) as usize;
        &self.0[part % PARTS]
    }
}

impl Part {
    fn lock(&self) -> MutexGuard<'_, Runs> {
        // No user code runs under this lock, and what panics in it is out of memory.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An ordered set in runs of up to [`RUN`], each under a lower bound of what is in it: 16 to 24 bytes an entry where a
/// B-tree of single entries takes up to 36. Most entries are put in the order in which they expire: they extend the last
/// run, and leave full runs behind. No run is empty.
#[derive(Debug, Default)]
struct Runs(BTreeMap<Due, VecDeque<Due>>);

/// 4 KiB.
const RUN: usize = 256;

impl Runs {
    fn insert(&mut self, due: Due) {
        let Some((_, run)) = self.0.range_mut(..=due).next_back() else {
            // Before all others: the first run is found under a lower bound from now on.
            let run = self.0.pop_first().map_or_else(VecDeque::new, |(_, run)| run);
            self.0.insert((0, 0), run);
            return self.insert(due);
        };
        let place = match run.back() {
            Some(last) if *last < due => Err(run.len()),
            _ => run.binary_search(&due),
        };
        let Err(place) = place else { return };
        if run.len() < RUN {
            run.insert(place, due);
            return;
        }
        // At its end nothing is moved: the next ones will come there too.
        let mut later = run.split_off(if place == RUN { RUN } else { RUN / 2 });
        run.shrink_to_fit();
        match later.front().copied() {
            None => drop(self.0.insert(due, VecDeque::from([due]))),
            Some(first) if due < first => {
                run.insert(place, due);
                self.0.insert(first, later);
            }
            Some(first) => {
                later.insert(place - RUN / 2, due);
                self.0.insert(first, later);
            }
        }
    }

    fn remove(&mut self, due: Due) {
        let Some((&bound, run)) = self.0.range_mut(..=due).next_back() else { return };
        let place = if run.front() == Some(&due) { Ok(0) } else { run.binary_search(&due) };
        if let Ok(place) = place {
            run.remove(place);
            if run.is_empty() {
                self.0.remove(&bound);
            }
        }
    }

    fn first(&self) -> Option<Due> {
        self.0.first_key_value()?.1.front().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(Due),
        Remove(Due),
        TakeFirst,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let due = || (0_u64..2_000, 0_u64..3);
        let step = prop_oneof![
            6 => due().prop_map(Step::Insert),
            2 => due().prop_map(Step::Remove),
            1 => Just(Step::TakeFirst),
        ];
        prop::collection::vec(step, 0..4_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn runs_are_an_ordered_set(steps in steps()) {
            let (mut runs, mut model) = (Runs::default(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Insert(due) => {
                        runs.insert(due);
                        model.insert(due);
                    }
                    Step::Remove(due) => {
                        runs.remove(due);
                        model.remove(&due);
                    }
                    Step::TakeFirst => {
                        let first = runs.first();
                        prop_assert_eq!(first, model.pop_first());
                        first.into_iter().for_each(|due| runs.remove(due));
                    }
                }
                prop_assert!(runs.0.values().all(|run| (1..=RUN).contains(&run.len())));
            }
            let held: Vec<_> = runs.0.values().flatten().copied().collect();
            prop_assert_eq!(held, model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_comes_in_order_fills_its_runs() {
        let mut runs = Runs::default();
        (0..10_000).for_each(|at| runs.insert((at, 0)));
        assert_eq!(runs.0.len(), 10_000_usize.div_ceil(RUN));
    }
}
