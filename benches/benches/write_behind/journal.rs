//! How many acknowledged writes share a sync.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tierkeep::write_behind::{JournalSync, WriteBehind};
use tierkeep_benches::{Comparison, Measure, Outcome, Sampled, Setting, Skipped, Unit};

use crate::redis::{cache, end, runtime, server, write};
use crate::zipf::Zipf;

pub(crate) const MEASURES: &[Measure] = &[Measure {
    names: &["journal_writes_per_sync"],
    about: "acknowledged writes per sync of a journal that syncs always, 64 writers",
    run: writes_per_sync,
}];

/// A directory on the disk of the build, which is a real one more often than the one for temporary files.
fn directory() -> Result<tempfile::TempDir, Skipped> {
    let near = std::env::current_exe().ok().and_then(|path| path.parent().map(PathBuf::from));
    tempfile::tempdir_in(near.unwrap_or_else(std::env::temp_dir))
        .map_err(|error| Skipped(format!("there is no directory for a journal: {error}")))
}

fn writes_per_sync(setting: &Setting) -> Outcome {
    let runtime = runtime();
    let (server, directory) = (server()?, directory()?);
    let behind = WriteBehind::journal(directory.path(), JournalSync::Always);
    let (cache, region) = runtime.block_on(cache(&server, Some(behind)));
    let (zipf, next) = (Arc::new(Zipf::new(7)), Arc::new(AtomicU64::new(0)));
    let counts = || {
        let journal = cache.inspect().tiers[1].write_behind.as_ref().and_then(|queue| queue.journal.clone());
        journal.map(|journal| (journal.writes, journal.syncs)).expect("a journal")
    };
    let mut samples: Vec<f64> = (0..setting.rounds)
        .map(|_| {
            let before = counts();
            runtime.block_on(write(
                &region,
                &zipf,
                &next,
                64,
                setting.round.max(Duration::from_millis(200)),
                false,
            ));
            let after = counts();
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let per_sync = (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64;
            per_sync
        })
        .collect();
    runtime.block_on(end(&cache));
    samples.sort_unstable_by(f64::total_cmp);
    let range = (samples[0], samples[samples.len() - 1]);
    let ours = Sampled { label: "journal", median: samples[samples.len() / 2], range };
    let promised = Sampled { label: "promised", median: 16.0, range: (16.0, 16.0) };
    Ok(vec![Comparison::new("journal_writes_per_sync", Unit::Times, 1.0, &ours, &promised)])
}
