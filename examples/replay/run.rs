//! The replay, and what was seen: who answered how many requests how fast, in each of a hundred stretches of the trace.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Cache, Region};

use crate::args::Args;
use crate::{Failure, tiers};

/// Points of the drawing.
pub(crate) const STRETCHES: usize = 100;

/// What was seen.
pub(crate) struct Seen {
    /// The tiers from the top down, and the origin last.
    pub(crate) sources: Vec<String>,
    /// Nanoseconds per answer: by stretch, then by source.
    pub(crate) stretches: Vec<Vec<Histogram<u64>>>,
    elapsed: Duration,
}

/// What the readers share.
struct Shared {
    runtime: RuntimeHandle,
    region: Region<u64, String>,
    trace: Vec<String>,
    sources: Vec<String>,
    load_delay: Duration,
    next: AtomicUsize,
    bar: ProgressBar,
}

/// Requests every key of the trace, in its order, `concurrency` at a time.
pub(crate) async fn replay(runtime: RuntimeHandle, args: &Args, trace: Vec<String>) -> Result<Seen, Failure> {
    let mut builder = Cache::builder(runtime.clone());
    for tier in &args.tiers {
        builder = builder.tier(tiers::tier(tier)?);
    }
    let cache = builder.build().await?;
    let bar = ProgressBar::new(trace.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} requests, {per_sec}")?);
    let shared = Arc::new(Shared {
        runtime: runtime.clone(),
        region: cache.region("replay").no_expiry().build()?,
        sources: args.tiers.iter().cloned().chain(["origin".to_owned()]).collect(),
        load_delay: args.load_delay,
        next: AtomicUsize::new(0),
        trace,
        bar,
    });
    let start = runtime.now();
    let readers: Vec<_> = (0..args.concurrency).map(|_| runtime.spawn(read(Arc::clone(&shared)))).collect();
    let mut seen = Seen::new(shared.sources.clone())?;
    for reader in readers {
        seen.add(&reader.await??)?;
    }
    seen.elapsed = runtime.now().since(start);
    shared.bar.finish_and_clear();
    cache.shutdown(Duration::from_secs(10)).await;
    Ok(seen)
}

async fn read(shared: Arc<Shared>) -> Result<Seen, Failure> {
    let Shared { runtime, region, trace, sources, .. } = &*shared;
    let mut seen = Seen::new(sources.clone())?;
    loop {
        let request = shared.next.fetch_add(1, Ordering::Relaxed);
        let Some(key) = trace.get(request) else { return Ok(seen) };
        let load = || async {
            if !shared.load_delay.is_zero() {
                runtime.sleep(shared.load_delay).await;
            }
            Ok::<_, Failure>(request as u64)
        };
        let start = runtime.now();
        let hit = region.get_or_load(key, load).await?;
        let took = runtime.now().since(start);
        let tier = hit.tier().and_then(|tier| sources.iter().position(|known| known == tier.as_str()));
        let source = tier.unwrap_or(sources.len() - 1);
        seen.stretches[request * STRETCHES / trace.len()][source].record(u64::try_from(took.as_nanos())?)?;
        shared.bar.inc(1);
    }
}

impl Seen {
    fn new(sources: Vec<String>) -> Result<Self, Failure> {
        // Two digits: a hundred stretches of every reader stay small.
        let stretch = vec![Histogram::new(2)?; sources.len()];
        Ok(Self { sources, stretches: vec![stretch; STRETCHES], elapsed: Duration::ZERO })
    }

    fn add(&mut self, other: &Self) -> Result<(), Failure> {
        for (mine, other) in self.stretches.iter_mut().flatten().zip(other.stretches.iter().flatten()) {
            mine.add(other)?;
        }
        Ok(())
    }

    pub(crate) fn print(&self) {
        let total: u64 = self.stretches.iter().flatten().map(Histogram::len).sum();
        println!("{:<24} {:>10} {:>8} {:>11} {:>11}", "answered by", "requests", "share", "p50", "p99");
        for (index, source) in self.sources.iter().enumerate() {
            let mut all = self.stretches[0][index].clone();
            for stretch in &self.stretches[1..] {
                // Of one kind, so they always add up.
                let _ = all.add(&stretch[index]);
            }
            let micros = |quantile| all.value_at_quantile(quantile) as f64 / 1000.0;
            println!(
                "{source:<24} {:>10} {:>7.2}% {:>8.1} µs {:>8.1} µs",
                all.len(),
                all.len() as f64 * 100.0 / total as f64,
                micros(0.5),
                micros(0.99)
            );
        }
        let seconds = self.elapsed.as_secs_f64();
        println!("{total} requests in {seconds:.2} s: {:.0} a second", total as f64 / seconds);
    }
}
