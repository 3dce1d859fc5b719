//! What an entry takes, from the memory that a process of its own has resident.

use tierkeep::Cache;
use tierkeep_benches::peers::{hitbox, tierkeep as own};
use tierkeep_benches::process::{Side, figure_of, resident_bytes};
use tierkeep_benches::values::{Identified, Record};
use tierkeep_benches::{Comparison, Contest, Measure, Outcome, Setting, Skipped, Unit, micro};
use tierkeep_tokio::TokioRuntime;

pub(crate) const MEASURES: &[Measure] = &[Measure {
    names: &["memory"],
    about: "resident bytes per entry, 1 M entries of 100 bytes with TTL, one process each",
    run: memory,
}];

/// Run by processes of their own.
pub(crate) const SIDES: &[Side] = &[("memory-tierkeep", fill_ours), ("memory-hitbox-moka", fill_hitbox)];

const ENTRIES: u64 = 1_000_000;
/// Shards fill unevenly; with room to spare nothing is evicted.
const CAPACITY: u64 = ENTRIES * 11 / 10;

fn memory(setting: &Setting) -> Outcome {
    if resident_bytes().is_none() {
        return Err(Skipped("/proc/self/status does not say how much memory is resident here".to_owned()));
    }
    let sides = Contest::new(setting, Unit::Bytes)
        .rounds(10)
        .fixed("tierkeep", || figure_of("memory-tierkeep"))
        .fixed("hitbox-moka", || figure_of("memory-hitbox-moka"))
        .run();
    Ok(vec![Comparison::new("memory", Unit::Bytes, 2.0, &sides[0], &sides[1])])
}

fn fill_ours() -> f64 {
    micro::runtime().block_on(async {
        let tier = own::memory("l1", CAPACITY as usize);
        let cache =
            Cache::builder(TokioRuntime::current()).tier(tier).build().await.expect("a cache in memory");
        let region = own::region::<Record>(&cache, "bench");
        let before = resident();
        for id in 0..ENTRIES {
            region.set(&id, Record::of(id)).await.expect("a set in memory");
        }
        let per_entry = grown_since(before);
        for id in 0..ENTRIES {
            assert_eq!(region.get(&id).await.expect("nothing was evicted").id(), id);
        }
        own::shutdown(&cache).await;
        per_entry
    })
}

fn fill_hitbox() -> f64 {
    micro::runtime().block_on(async {
        let backend = hitbox::moka("l1", CAPACITY);
        let before = resident();
        for id in 0..ENTRIES {
            hitbox::set(&backend, &hitbox::key("bench", id), Record::of(id)).await;
        }
        backend.cache().run_pending_tasks().await;
        let per_entry = grown_since(before);
        for id in 0..ENTRIES {
            let value: Record =
                hitbox::get(&backend, &hitbox::key("bench", id)).await.expect("nothing was evicted");
            assert_eq!(value.id(), id);
        }
        per_entry
    })
}

fn resident() -> u64 {
    resident_bytes().expect("asked before")
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn grown_since(before: u64) -> f64 {
    (resident() - before) as f64 / ENTRIES as f64
}
