//! The one task that writes: what was put while it wrote goes into its next batch.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::medium::Medium;
use super::state::{Shared, Step, Taken};
use crate::error::Result;
use crate::runtime::{Instant, RuntimeHandle, jitter};

/// The pause before a store that failed is opened anew: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How many batches go by between two looks at how much the files take.
const LOOK_EVERY: u32 = 64;

/// Writes until the journal is closed. An error is what kept the last of it from being written.
pub(super) async fn run(shared: Arc<Shared>) -> Result<()> {
    // However this ends, nobody waits for a writer that is gone.
    let ending = Ending(shared);
    let shared = &ending.0;
    let mut pause = FIRST_PAUSE;
    let mut batches: u32 = 0;
    let mut salvaged = shared.report().moved_aside;
    let result = loop {
        // Before the look at what there is to do, so that nothing falls between the two.
        let changed = shared.changed.listen();
        let failed = match shared.step(shared.runtime.now()) {
            Step::Write(taken) => {
                let synced = taken.batch.sync;
                let asides = if synced { std::mem::take(&mut salvaged) } else { Vec::new() };
                let look = batches.is_multiple_of(LOOK_EVERY);
                batches = batches.wrapping_add(1);
                match write(shared, &taken, asides.clone(), look).await {
                    Ok(()) => {
                        shared.written(taken);
                        pause = FIRST_PAUSE;
                        continue;
                    }
                    Err(error) => {
                        salvaged.extend(asides);
                        shared.not_written(taken, &error, retry_at(&shared.runtime, pause));
                        error
                    }
                }
            }
            Step::Reopen => match blocking(shared, Medium::reopen).await {
                Ok(report) => {
                    salvaged.extend(report.moved_aside.iter().cloned());
                    shared.reopened(report);
                    continue;
                }
                Err(error) => {
                    shared.not_reopened(&error, retry_at(&shared.runtime, pause));
                    error
                }
            },
            Step::Wait(Some(until)) => {
                let _ = shared.runtime.deadline(until, changed).await;
                continue;
            }
            Step::Wait(None) => {
                changed.await;
                continue;
            }
            Step::End => break Ok(()),
        };
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        if shared.is_closing() {
            break Err(failed);
        }
    };
    // fjall syncs here, and waits for its threads; then the directory is free.
    let left = result.is_ok().then(|| shared.status().records);
    let closed = blocking(shared, move |store| {
        store.close(left);
        Ok(())
    });
    let closed = closed.await;
    result.and(closed)
}

struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended();
    }
}

async fn write(shared: &Arc<Shared>, taken: &Taken, salvaged: Vec<PathBuf>, look: bool) -> Result<()> {
    let batch = Arc::clone(&taken.batch);
    let shares = Arc::clone(shared);
    let job = move |store: &Medium| {
        store.commit(&batch)?;
        store.salvage_finished(&salvaged);
        if look {
            shares.disk_bytes.store(store.disk_bytes(), Ordering::Relaxed);
        }
        Ok(())
    };
    blocking(shared, job).await
}

fn retry_at(runtime: &RuntimeHandle, pause: Duration) -> Instant {
    runtime.now().after(jitter(pause, runtime.random()))
}

/// A job on the store.
async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    job: impl FnOnce(&Medium) -> Result<T> + Send + 'static,
) -> Result<T> {
    let store = Arc::clone(&shared.store);
    match shared.runtime.spawn_blocking(move || job(&store)).await {
        Ok(result) => result,
        Err(error) => Err(super::aborted(&error)),
    }
}
