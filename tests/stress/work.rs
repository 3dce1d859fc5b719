//! What each task does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tierkeep::Hit;
use tierkeep_sim::history::Read;

use super::world::{ROWS, Round, SETS, World};

/// A small generator (SplitMix64): each task has its own.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let sides = from.len() as u64;
        from[usize::try_from(self.roll(sides)).expect("less than the length")]
    }

    /// Mostly nothing, so that operations meet.
    fn pause(&mut self) -> Duration {
        let most = self.pick(&[0, 0, 0, 100, 2_000]);
        Duration::from_micros(self.roll(most + 1))
    }
}

type Op = Pin<Box<dyn Future<Output = ()> + Send>>;

impl World {
    /// Works until the rounds are over; returns how much was done.
    pub(crate) async fn work(self: Arc<Self>, seed: u64) -> u64 {
        let mut dice = Dice(seed);
        let mut done = 0;
        while let Some(round) = self.round() {
            let pause = dice.pause();
            if !pause.is_zero() {
                self.runtime.sleep(pause).await;
            }
            let op = Arc::clone(&self).draw(round, &mut dice);
            if dice.roll(20) == 0 {
                // A caller who gives up.
                let patience = self.runtime.now().after(Duration::from_micros(dice.roll(3_000)));
                self.runtime.deadline(patience, op).await;
            } else {
                op.await;
            }
            done += 1;
        }
        done
    }

    fn draw(self: Arc<Self>, round: Arc<Round>, dice: &mut Dice) -> Op {
        let set = round.set_keys().start + dice.roll(SETS);
        let row = round.row_keys().start + dice.roll(ROWS);
        match dice.roll(1000) {
            0..=299 => Box::pin(self.get(round, set)),
            300..=349 => Box::pin(self.get_many(round)),
            350..=549 => Box::pin(self.set(round, set)),
            550..=619 => Box::pin(self.remove(round, set)),
            620..=769 => {
                let (before, after) = (dice.pause(), dice.pause());
                Box::pin(self.load(round, row, before, after))
            }
            770..=879 => Box::pin(self.get(round, row)),
            880..=976 => Box::pin(self.update(round, row)),
            // Few: the disk tier syncs each.
            977..=979 => Box::pin(self.clear(round)),
            980..=995 => {
                let label = dice.pick(&["memory", "remote", "low"]);
                Box::pin(async move {
                    let _ = self.cache.crash_tier(label);
                })
            }
            _ => Box::pin(async move {
                let _ = self.cache.crash_supervisor();
            }),
        }
    }

    async fn get(self: Arc<Self>, round: Arc<Round>, key: u64) {
        let region = if round.row_keys().contains(&key) { &self.rows } else { &self.sets };
        let read = round.history.read();
        let hit = region.get(&key).await;
        self.check(&round, key, hit.as_ref(), read);
    }

    async fn get_many(self: Arc<Self>, round: Arc<Round>) {
        let keys: Vec<_> = round.set_keys().collect();
        let read = round.history.read();
        let hits = self.sets.get_many(&keys).await;
        for (key, hit) in keys.into_iter().zip(&hits) {
            self.check(&round, key, hit.as_ref(), read);
        }
    }

    async fn set(self: Arc<Self>, round: Arc<Round>, key: u64) {
        let value = self.fresh();
        let change = round.history.begin(key, Some(value));
        let _ = self.sets.set(&key, value).await;
        change.complete();
    }

    async fn remove(self: Arc<Self>, round: Arc<Round>, key: u64) {
        let change = round.history.begin(key, None);
        let _ = self.sets.remove(&key).await;
        change.complete();
    }

    async fn clear(self: Arc<Self>, round: Arc<Round>) {
        let changes: Vec<_> = round.set_keys().map(|key| round.history.begin(key, None)).collect();
        let _ = self.sets.clear().await;
        changes.into_iter().for_each(|change| change.complete());
    }

    /// As an application does: the database first, then the cache.
    async fn update(self: Arc<Self>, round: Arc<Round>, key: u64) {
        let value = self.fresh();
        let change = {
            // Rows count in the order in which they were written: both under one lock.
            let mut database = round.database.lock().unwrap();
            let change = round.history.begin(key, Some(value));
            database.insert(key, value);
            change
        };
        let _ = self.rows.remove(&key).await;
        change.complete();
    }

    async fn load(self: Arc<Self>, round: Arc<Round>, key: u64, before: Duration, after: Duration) {
        let read = round.history.read();
        let loader = || async {
            self.runtime.sleep(before).await;
            let row = round.database.lock().unwrap()[&key];
            self.runtime.sleep(after).await;
            Ok::<_, std::io::Error>(row)
        };
        let loaded = self.rows.get_or_load(&key, loader).await;
        self.check(&round, key, loaded.as_ref().ok(), read);
    }

    fn check(&self, round: &Round, key: u64, hit: Option<&Hit<u64>>, read: Read) {
        let Some(hit) = hit else { return };
        self.hits.fetch_add(1, Ordering::Relaxed);
        self.judge(round, key, **hit, read, hit.tier().map_or("a load", |tier| tier.as_str()));
    }
}
