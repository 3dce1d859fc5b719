//! What write-behind tiers have to show beside what all tiers have: that every accepted write is accounted for, that the
//! store is written in order, and that nothing is left when the cache has come to rest.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tierkeep::write_behind::{DeadLetter, DeadLetterSink, Overload, Retry, WriteBehind};
use tierkeep::{BackendResult, Cache, Error, ErrorKind, WriteBehindCounts};

use super::scenario::{Kind, Scenario, chance, micros, millis};
use super::world::lock;
use crate::history::Violation;
use crate::rng::Rng;

/// How a tier of a scenario writes behind.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BehindPlan {
    /// See the method of the same name of [`WriteBehind`], as the others.
    pub entries: usize,
    #[expect(missing_docs, reason = "as the first")]
    pub bytes: usize,
    #[expect(missing_docs, reason = "as the first")]
    pub overload: Overload,
    #[expect(missing_docs, reason = "as the first")]
    pub batch_keys: usize,
    #[expect(missing_docs, reason = "as the first")]
    pub max_delay: Duration,
    #[expect(missing_docs, reason = "as the first")]
    pub retry: Retry,
    /// Of so many dead letters the sink refuses one.
    pub refuses: u64,
}

impl Scenario {
    /// Draws the scenario of `seed`, with tiers that write behind.
    pub fn draw_behind(seed: u64) -> Self {
        let mut scenario = Self::draw(seed);
        let mut rng = Rng::new(seed ^ 0xbe41_0000);
        if scenario.tiers.len() < 2 {
            let lower = scenario.tiers[0].clone();
            scenario.tiers.push(lower);
        }
        // Some of the lower tiers, one at least.
        let first = 1 + rng.index(scenario.tiers.len() - 1);
        for (index, tier) in scenario.tiers.iter_mut().enumerate().skip(1) {
            if index != first && chance(&mut rng, 0.5) {
                continue;
            }
            if chance(&mut rng, 0.8) {
                tier.kind = Kind::Remote;
            }
            tier.behind = Some(plan(&mut rng));
        }
        scenario
    }
}

fn plan(rng: &mut Rng) -> BehindPlan {
    let block = millis(rng, 1, 30);
    let first = Duration::from_micros(500 + rng.below(5_000));
    let retry = Retry::default().backoff(first, first * 8).attempts([1, 2, 4, 1000][rng.index(4)]);
    BehindPlan {
        entries: [1, 2, 3, 100, 100][rng.index(5)],
        bytes: [300, 1 << 20, 1 << 20][rng.index(3)],
        overload: [Overload::Block(block), Overload::Reject, Overload::WriteThrough, Overload::DropOldest]
            [rng.index(4)],
        batch_keys: [1, 2, 8][rng.index(3)],
        max_delay: [Duration::ZERO, micros(rng, 2_000), millis(rng, 1, 60)][rng.index(3)],
        retry: if chance(rng, 0.2) { retry.age(millis(rng, 5, 100)) } else { retry },
        refuses: [0, 0, 3][rng.index(3)],
    }
}

impl BehindPlan {
    /// How long a mutation may be held up by a full queue.
    pub(super) fn longest(&self) -> Duration {
        match self.overload {
            Overload::Block(longest) => longest,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn build(&self) -> WriteBehind {
        WriteBehind::memory()
            .entries(self.entries)
            .bytes(self.bytes)
            .overload(self.overload)
            .batch_keys(self.batch_keys)
            .max_delay(self.max_delay)
            .retry(self.retry)
            .dead_letters(Grudging { refuses: self.refuses, seen: Arc::default() })
    }
}

/// A sink that refuses some letters.
struct Grudging {
    refuses: u64,
    seen: Arc<Mutex<u64>>,
}

#[async_trait]
impl DeadLetterSink for Grudging {
    async fn deliver(&self, _: &DeadLetter) -> BackendResult<()> {
        let mut seen = lock(&self.seen);
        *seen += 1;
        match self.refuses > 0 && seen.is_multiple_of(self.refuses) {
            true => Err(Error::new(ErrorKind::Backend, "injected refusal of a letter")),
            false => Ok(()),
        }
    }
}

/// Whether each accepted write is applied, superseded, dead or queued.
pub(super) fn accounts(label: &str, counts: &WriteBehindCounts, queued: u64) -> Option<Violation> {
    let explained = counts.applied + counts.superseded + counts.dead + queued;
    (counts.accepted != explained).then(|| Violation::Unaccounted {
        what: format!(
            "{label}: {} accepted, {explained} explained: queued {queued}, {counts:?}",
            counts.accepted
        ),
    })
}

/// What is wrong with the queues of a cache, at any moment.
pub(super) fn unaccounted(cache: &Cache) -> Vec<Violation> {
    let tiers = cache.inspect().tiers;
    let queues = tiers.iter().filter_map(|tier| Some((tier.label.as_str(), tier.write_behind.as_ref()?)));
    queues.filter_map(|(label, queue)| accounts(label, &queue.counts, queue.queued as u64)).collect()
}

/// What is wrong with how a cache ended: whatever was accepted has to be explained, and every dead letter handed on.
pub(super) async fn end(cache: &Cache, within: Duration, at_rest: bool) -> Vec<Violation> {
    let report = cache.shutdown(within).await;
    let mut wrong = unaccounted(cache);
    for tier in &report.tiers {
        let Some(behind) = &tier.write_behind else { continue };
        let label = tier.label.as_str();
        let explained = behind.applied + behind.superseded + behind.dead;
        if explained != behind.accepted || (at_rest && behind.lost > 0) {
            wrong.push(Violation::Unaccounted { what: format!("{label}: its end {behind:?}") });
        }
        let queue =
            cache.inspect().tier(label).and_then(|tier| tier.write_behind.clone()).unwrap_or_default();
        let letters = queue.letters_delivered + queue.letters_undelivered + queue.letters_waiting as u64;
        if letters != behind.dead {
            wrong.push(Violation::Unaccounted {
                what: format!("{label}: {} dead, {letters} letters", behind.dead),
            });
        }
    }
    wrong
}
