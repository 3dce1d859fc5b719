//! How near a composed hit comes to the bare map that the memory tier is made of.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache as QuickCache, DefaultLifecycle};
use tierkeep::{Cache, CacheKey, KeyHash, Object, Packed};
use tierkeep_benches::clock::Watch;
use tierkeep_benches::peers::tierkeep as own;
use tierkeep_benches::values::{Account, Identified, Record};
use tierkeep_benches::{Comparison, Contest, Measure, Outcome, Setting, Unit, micro};
use tierkeep_tokio::TokioRuntime;
use tokio::runtime::Runtime;

pub(crate) const MEASURES: &[Measure] = &[
    Measure {
        names: &["hit_floor"],
        about: "bare quick_cache get of the same entry, beside a composed hit; 1,024 entries",
        run: small,
    },
    Measure {
        names: &["hit_floor_10m"],
        about: "the same with 10 million entries, read in random order",
        run: huge,
    },
];

/// The same map, key and hash as in a memory tier, alone.
type Bare = QuickCache<CacheKey, Slot, UnitWeighter, KeyHash>;

/// What a memory tier keeps of an entry: the value, and a block of stamps that comes along with it.
#[derive(Clone)]
struct Slot {
    object: Object,
    _stamps: [u64; 4],
}

const _: () = assert!(size_of::<Slot>() == size_of::<Packed>());

struct Floor {
    runtime: Runtime,
    cache: Cache,
    bare: Bare,
    /// What is read, and the id that its value must have.
    reads: Vec<(CacheKey, u64)>,
}

fn small(setting: &Setting) -> Outcome {
    let floor = Floor::new::<Account>(1_024, 16 * 1_024, (0..1_024).collect());
    Ok(vec![floor.compare::<Account>(setting, "hit_floor", 0.3)])
}

/// Reads a million keys in random order: what is read was not read lately, so the processor's caches do not have it.
fn huge(setting: &Setting) -> Outcome {
    const ENTRIES: u64 = 10_000_000;
    const NEEDED: u64 = 9 << 30;
    match available_bytes() {
        Some(available) if available < NEEDED => {
            let message = format!("it needs 9 GiB of memory, and {} MiB are available", available >> 20);
            return Err(tierkeep_benches::Skipped(message));
        }
        _ => {}
    }
    // A fixed odd multiplier goes through all residues of a power of two; those past the entries are left out.
    let scattered = (0_u64..1 << 24).map(|n| n.wrapping_mul(0x9E37_79B1) % (1 << 24));
    let reads = scattered.filter(|&id| id < ENTRIES).take(1 << 20).collect();
    // Some room to spare: shards fill unevenly, and every entry must be there.
    let floor = Floor::new::<Record>(ENTRIES, ENTRIES as usize * 11 / 10, reads);
    let setting = Setting { round: setting.round.max(Duration::from_millis(250)), ..setting.clone() };
    Ok(vec![floor.compare::<Record>(&setting, "hit_floor_10m", 0.5)])
}

impl Floor {
    fn new<T>(entries: u64, capacity: usize, reads: Vec<u64>) -> Self
    where
        T: Identified + serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
    {
        let runtime = micro::runtime();
        // Built side by side, so that neither has the better place in memory.
        let bare = Bare::with(capacity, capacity as u64, UnitWeighter, KeyHash, DefaultLifecycle::default());
        let (cache, reads) = runtime.block_on(async {
            let cache =
                own::compose(TokioRuntime::current(), own::memory("l1", capacity), own::memory("l2", 1_024))
                    .await;
            let region = own::region::<T>(&cache, "bench");
            let ids: Vec<u64> = (0..entries).collect();
            for ids in ids.chunks(256) {
                for set in region.set_many(ids.iter().map(|id| (id, T::of(*id)))).await {
                    set.expect("a set in memory");
                }
                for id in ids {
                    bare.insert(region.key(id), Slot { object: Arc::new(T::of(*id)), _stamps: [*id; 4] });
                }
            }
            let reads: Vec<_> = reads.into_iter().map(|id| (region.key(&id), id)).collect();
            (cache, reads)
        });
        Self { runtime, cache, bare, reads }
    }

    fn compare<T>(self, setting: &Setting, name: &'static str, goal: f64) -> Comparison
    where
        T: Identified + serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
    {
        let (reads, mut ours_at, mut bare_at) = (&self.reads, 0, 0);
        let sides = Contest::new(setting, Unit::Nanos)
            .timed("tierkeep", |operations| {
                self.runtime.block_on(async {
                    let watch = Watch::start();
                    for _ in 0..operations {
                        let (key, id) = next(reads, &mut ours_at);
                        let hit = self.cache.get::<T>(black_box(key)).await.expect("a hit");
                        assert_eq!(hit.id(), *id);
                    }
                    watch.elapsed()
                })
            })
            .timed("quick_cache-bare", |operations| {
                let watch = Watch::start();
                for _ in 0..operations {
                    let (key, id) = next(reads, &mut bare_at);
                    let slot = self.bare.get(black_box(key)).expect("a hit");
                    assert_eq!(slot.object.downcast_ref::<T>().expect("stored as this type").id(), *id);
                }
                watch.elapsed()
            })
            .run();
        self.runtime.block_on(own::shutdown(&self.cache));
        Comparison::new(name, Unit::Nanos, goal, &sides[0], &sides[1])
    }
}

/// The next read, round and round; their number is a power of two.
fn next<'a>(reads: &'a [(CacheKey, u64)], at: &mut usize) -> &'a (CacheKey, u64) {
    *at = (*at + 1) & (reads.len() - 1);
    &reads[*at]
}

fn available_bytes() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes << 10)
}
