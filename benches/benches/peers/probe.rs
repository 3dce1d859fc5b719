//! What codec work does to everything else on the executor: a task that wants to run a thousand times a second.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hitbox_backend::ZstdCompressor as HitboxZstd;
use hitbox_backend::format::BincodeFormat;
use hitbox_moka::MokaBackend;
use tierkeep::codec::ZstdCompressor;
use tierkeep::{Cache, Tier};
use tierkeep_benches::peers::bytes::BytesBackend;
use tierkeep_benches::peers::{hitbox, tierkeep as own};
use tierkeep_benches::values::{Document, Identified};
use tierkeep_benches::{Comparison, Contest, Measure, Outcome, Sampled, Setting, Unit, micro};
use tierkeep_tokio::TokioRuntime;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

pub(crate) const MEASURES: &[Measure] = &[Measure {
    names: &["probe", "probe_p99"],
    about: "1 kHz ticks served on 2 workers while four tasks set and get 4 MB zstd values, and when idle",
    run: probe,
}];

const TASKS: u64 = 4;
const PERIOD: Duration = Duration::from_millis(1);
const WINDOW: Duration = Duration::from_secs(2);
const LEVEL: i32 = 3;

/// A window of ticks.
struct Ticks {
    /// Of those that were due.
    served: f64,
    /// In nanoseconds from the intended tick, those never served included.
    p99: f64,
}

fn probe(setting: &Setting) -> Outcome {
    let runtime = micro::runtime();
    let cache = runtime.block_on(async {
        // Deadlines that no call meets: every set and every get is to do its work to the end.
        let tier = Tier::new(BytesBackend::new(64).compressor(ZstdCompressor::new(LEVEL)))
            .read_deadline(Duration::from_secs(30))
            .write_deadline(Duration::from_secs(30));
        Cache::builder(TokioRuntime::current()).tier(tier).build().await.expect("a cache in memory")
    });
    let seed = MokaBackend::builder()
        .max_entries(64)
        .value_format(BincodeFormat)
        .compressor(HitboxZstd::with_level(LEVEL))
        .build();
    let documents: Vec<_> = (0..TASKS).map(|id| Arc::new(Document::of(id))).collect();
    let p99s = RefCell::new([const { Vec::new() }; 3]);
    let share = |side: usize, ticks: Ticks| {
        p99s.borrow_mut()[side].push(ticks.p99);
        ticks.served
    };
    let worked = [AtomicU64::new(0), AtomicU64::new(0)].map(Arc::new);
    let sides = Contest::new(setting, Unit::Share)
        .rounds(10)
        .fixed("tierkeep", || {
            let region = own::region::<Document>(&cache, "documents");
            let load = Load::start(&runtime, &documents, &worked[0], move |document| {
                let region = region.clone();
                async move {
                    let id = document.id();
                    region.set(&id, document).await.expect("the store takes it");
                    let hit = region.get(&id).await.expect("it was set");
                    assert!(hit.id() == id && hit.is_whole());
                }
            });
            share(0, load.watched(&runtime))
        })
        .fixed("idle", || share(1, runtime.block_on(ticks(&runtime))))
        .fixed("hitbox", || {
            let seed = seed.clone();
            let load = Load::start(&runtime, &documents, &worked[1], move |document| {
                let seed = seed.clone();
                async move {
                    let id = document.id();
                    let key = hitbox::key("documents", id);
                    hitbox::set(&seed, &key, Document::clone(&document)).await;
                    let value: Document = hitbox::get(&seed, &key).await.expect("it was set");
                    assert!(value.id() == id && value.is_whole());
                }
            });
            share(2, load.watched(&runtime))
        })
        .run();
    runtime.block_on(own::shutdown(&cache));
    for (label, worked) in ["tierkeep", "hitbox"].iter().zip(&worked) {
        let turns = worked.load(Ordering::Relaxed);
        eprintln!("  {label}: {turns} sets and gets of 4 MB while it was watched");
        assert!(turns > 0, "there was no load");
    }
    let [loaded, idle, seed] = p99s.into_inner();
    // The first round of each side warmed it up.
    let p99 = |label, samples: Vec<f64>| Sampled::of(label, samples[1..].to_vec());
    let allowed = idle.iter().map(|p99| 5.0 * p99).collect();
    let loaded = p99("tierkeep", loaded);
    Ok(vec![
        Comparison::new("probe", Unit::Share, 0.9, &sides[0], &sides[1]),
        Comparison::informative("probe", Unit::Share, &sides[0], &sides[2]),
        Comparison::new("probe_p99", Unit::Nanos, 1.0, &loaded, &p99("5-x-idle", allowed)),
        Comparison::informative("probe_p99", Unit::Nanos, &loaded, &p99("hitbox", seed)),
    ])
}

/// Four tasks at work until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    fn start<F>(
        runtime: &Runtime,
        documents: &[Arc<Document>],
        worked: &Arc<AtomicU64>,
        turn: impl Fn(Arc<Document>) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |document: &Arc<Document>| {
            let (document, turn) = (Arc::clone(document), turn.clone());
            let (stop, worked) = (Arc::clone(&stop), Arc::clone(worked));
            runtime.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    turn(Arc::clone(&document)).await;
                    worked.fetch_add(1, Ordering::Relaxed);
                    // Whoever never waits would otherwise never let the ticks run at all.
                    tokio::task::yield_now().await;
                }
            })
        };
        let tasks = documents.iter().map(start).collect();
        Self { stop, tasks }
    }

    /// Watches the ticks for a window, then ends the load.
    fn watched(self, runtime: &Runtime) -> Ticks {
        runtime.block_on(async {
            let ticks = ticks(runtime).await;
            self.stop.store(true, Ordering::Relaxed);
            for task in self.tasks {
                task.await.expect("a wrong value");
            }
            ticks
        })
    }
}

/// Runs a task that is to tick every millisecond for a window, on the workers.
async fn ticks(runtime: &Runtime) -> Ticks {
    let ticking = runtime.spawn(async {
        #[expect(clippy::disallowed_methods, reason = "the executor's own timer is what is measured")]
        let mut interval = tokio::time::interval(PERIOD);
        // As a service would that does not want to catch up: what is long past is left out.
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let first = interval.tick().await;
        let (mut late, mut served, mut last) = (Vec::new(), 0_u32, first);
        while last - first < WINDOW {
            let intended = interval.tick().await;
            let now = tokio::time::Instant::now();
            served += 1;
            // Ticks that were left out waited too, until now.
            let mut due = last + PERIOD;
            while due < intended {
                late.push(now - due);
                due += PERIOD;
            }
            late.push(now - intended);
            last = intended;
        }
        late.sort_unstable();
        (served, late)
    });
    let (served, late) = ticking.await.expect("the ticks end by themselves");
    #[expect(clippy::cast_precision_loss, reason = "a few thousand ticks")]
    let due = late.len() as f64;
    let p99 = late[late.len() * 99 / 100];
    Ticks { served: f64::from(served) / due, p99: p99.as_secs_f64() * 1e9 }
}
