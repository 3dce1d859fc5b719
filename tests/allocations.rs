//! What each path allocates: everything counted, the actors' part included, since all of it runs on this thread.
//!
//! `docs/performance.md` states these numbers. A test fails when a path allocates more than it says there.

use std::sync::Arc;
use std::time::Duration;

use tierkeep::{Cache, CacheKey, MemoryBackend, Region, Tier};
use tierkeep_sim::MapBackend;
use tierkeep_tokio::TokioRuntime;
use tokio::runtime::Runtime;

const TTL: Duration = Duration::from_secs(24 * 3_600);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Allocations of one round of `work`, once it has been done before, on average rounded up.
fn allocations(runtime: &Runtime, mut work: impl AsyncFnMut(u64)) -> u64 {
    const ROUNDS: u64 = 128;
    let mut rounds = |from: u64| {
        runtime.block_on(async {
            for round in from..from + ROUNDS {
                work(round).await;
                // Lets the actors come to the end of what follows the answer.
                for _ in 0..32 {
                    tokio::task::yield_now().await;
                }
            }
        });
    };
    rounds(0);
    rounds(ROUNDS);
    // The least of a few: now and then a sweep, or the publishing of metrics, falls between them.
    let measured = (2..5).map(|turn| allocation_counter::measure(|| rounds(turn * ROUNDS)).count_total);
    measured.min().unwrap().div_ceil(ROUNDS)
}

fn two_memory_tiers(runtime: &Runtime) -> Cache {
    runtime.block_on(async {
        Cache::builder(TokioRuntime::current())
            .tier(MemoryBackend::entries(10_000))
            .tier(MemoryBackend::entries(10_000).label("lower".to_owned()))
            .build()
            .await
            .unwrap()
    })
}

/// Memory above a store of bytes.
fn over_bytes(runtime: &Runtime, entries: usize, store: MapBackend) -> Cache {
    runtime.block_on(async {
        Cache::builder(TokioRuntime::current())
            .tier(MemoryBackend::entries(entries))
            // However busy the machine is, each answer comes in time.
            .tier(Tier::new(store).read_deadline(TTL).write_deadline(TTL))
            .build()
            .await
            .unwrap()
    })
}

fn quotes<K: ?Sized>(cache: &Cache) -> Region<[u64; 15], K> {
    cache.region("quote").ttl(TTL).build().unwrap()
}

#[test]
fn a_hit_in_memory_allocates_nothing() {
    let runtime = runtime();
    let cache = two_memory_tiers(&runtime);
    let by_id: Region<[u64; 15], u64> = quotes(&cache);
    let by_pair: Region<String, (u32, named::Name)> = cache.region("pair").ttl(TTL).build().unwrap();
    let pair = (7, named::Name("a name".to_owned()));
    runtime.block_on(async {
        by_id.set(&7, [7; 15]).await.unwrap();
        by_pair.set(&pair, "value".to_owned()).await.unwrap();
    });
    let (id, name): (CacheKey, CacheKey) = (by_id.key(&7), by_pair.key(&pair));
    let reads = async || {
        assert_eq!(cache.get::<[u64; 15]>(&id).await.unwrap()[0], 7);
        assert_eq!(by_id.get(&7).await.unwrap()[0], 7);
        assert_eq!(by_id.peek(&7).unwrap()[0], 7);
        assert_eq!(cache.get::<String>(&name).await.unwrap().len(), 5);
        assert_eq!(by_pair.get(&pair).await.unwrap().len(), 5);
        let loaded = by_id.get_or_load(&7, || async { Err::<[u64; 15], _>("not called") }).await;
        assert_eq!(loaded.unwrap().tier().unwrap().as_str(), "memory");
    };
    runtime.block_on(reads());
    let allocated = allocation_counter::measure(|| (0..100).for_each(|_| runtime.block_on(reads())));
    assert_eq!(allocated.count_total, 0);
}

/// A key of text that needs no encoding once written.
mod named {
    use tierkeep::{KeyParts, KeyWriter};

    pub(crate) struct Name(pub(crate) String);

    impl KeyParts for Name {
        fn write(&self, key: &mut KeyWriter<'_>) {
            key.pair("name", &self.0);
        }
    }
}

#[test]
fn other_paths_allocate_what_the_performance_page_says() {
    let runtime = runtime();
    let value = Arc::new([7_u64; 15]);
    let over = |entries, in_process| {
        let store = MapBackend::new();
        over_bytes(&runtime, entries, if in_process { store.in_process() } else { store })
    };
    let (memory, bytes, narrow) = (two_memory_tiers(&runtime), over(10_000, false), over(1, false));
    let [fast, slow, lower]: [Region<_, u64>; 3] = [quotes(&memory), quotes(&bytes), quotes(&narrow)];
    // Sixty-four keys, so that what is measured replaces, as most sets do.
    let set = allocations(&runtime, async |id| fast.set(&(id % 64), Arc::clone(&value)).await.unwrap());
    let set_bytes = allocations(&runtime, async |id| slow.set(&(id % 64), Arc::clone(&value)).await.unwrap());
    let remove = allocations(&runtime, async |id| {
        fast.remove(&(1_000 + id)).await.unwrap();
    });
    let miss = allocations(&runtime, async |id| assert!(fast.get(&(1_000 + id)).await.is_none()));
    let load = allocations(&runtime, async |id| {
        fast.get_or_load(&(2_000 + id), async || Ok::<_, std::fmt::Error>([7; 15])).await.unwrap();
    });
    allocations(&runtime, async |id| lower.set(&(id % 64), Arc::clone(&value)).await.unwrap());
    let hit_below = allocations(&runtime, async |id| {
        assert_eq!(lower.get(&(id % 64)).await.unwrap().tier().unwrap().as_str(), "map");
    });
    let (bytes, narrow) = (over(10_000, true), over(1, true));
    let [near, beneath]: [Region<_, u64>; 2] = [quotes(&bytes), quotes(&narrow)];
    let set_near = allocations(&runtime, async |id| near.set(&(id % 64), Arc::clone(&value)).await.unwrap());
    allocations(&runtime, async |id| beneath.set(&(id % 64), Arc::clone(&value)).await.unwrap());
    let hit_near = allocations(&runtime, async |id| {
        assert_eq!(beneath.get(&(id % 64)).await.unwrap().tier().unwrap().as_str(), "map");
    });
    let measured = [set, set_bytes, remove, miss, load, hit_below, set_near, hit_near];
    assert!(measured.iter().zip(MOST).all(|(n, most)| *n <= most), "{measured:?} against {MOST:?}");
}

/// As the page has them: a set, one with a byte tier, a removal, a miss, a load, a hit below with its refill; then the
/// set and the hit with a byte tier in process.
/// With `tracing`, each read has a span, and takes the longer way to it.
const MOST: [u64; 8] = [2, 15, 2, if cfg!(feature = "tracing") { 4 } else { 2 }, 8, 16, 14, 7];

/// A thousand callers who wait do not fit in a processor's cache: what each of them keeps is fetched anew when its answer
/// comes.
#[test]
fn callers_who_wait_keep_little() {
    let runtime = runtime();
    let cache = two_memory_tiers(&runtime);
    let quotes: Region<[u64; 15], u64> = quotes(&cache);
    let value = Arc::new([7_u64; 15]);
    let sizes =
        [size_of_val(&quotes.get(&7)), size_of_val(&quotes.set(&7, value)), size_of_val(&quotes.remove(&7))];
    let spans = if cfg!(feature = "tracing") { 64 } else { 0 };
    let most = [224, 576, 448].map(|size| size + spans);
    assert!(sizes.iter().zip(most).all(|(size, most)| *size <= most), "{sizes:?} bytes against {most:?}");
}
