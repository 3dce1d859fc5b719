//! The replay: many readers work through the trace, check every answer and note who gave it and how long it took.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Hit, Region, Timestamp};

use crate::Failure;
use crate::origin::{Origin, Product};

/// How many requests are under way at a time.
const READERS: usize = 16;

/// How far the start of a run goes.
pub(crate) const FIRST: usize = 10_000;

/// Who answered.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Memory,
    Disk,
    Origin,
}

/// What the replay saw.
pub(crate) struct Replayed {
    /// Nanoseconds per answer, by [`Source`].
    latencies: [Histogram<u64>; 3],
    /// How many of the first requests were answered by entries that an earlier run left on disk.
    pub(crate) left_by_earlier_run: u64,
    /// How long it took.
    pub(crate) elapsed: Duration,
}

impl Replayed {
    fn new() -> Result<Self, Failure> {
        let histogram = Histogram::new(3)?;
        let latencies = [histogram.clone(), histogram.clone(), histogram];
        Ok(Self { latencies, left_by_earlier_run: 0, elapsed: Duration::ZERO })
    }

    /// The latencies of a source's answers.
    pub(crate) fn latencies(&self, source: Source) -> &Histogram<u64> {
        &self.latencies[source as usize]
    }

    /// How many requests were answered, and answered rightly.
    pub(crate) fn answers(&self) -> u64 {
        self.latencies.iter().map(Histogram::len).sum()
    }

    fn note(
        &mut self,
        hit: &Hit<Product>,
        took: Duration,
        request: usize,
        began: Timestamp,
    ) -> Result<(), Failure> {
        let source = match hit.tier().map(|tier| tier.as_str()) {
            Some("memory") => Source::Memory,
            Some("disk") => Source::Disk,
            Some(other) => return Err(format!("an answer from an unknown tier `{other}`").into()),
            None => Source::Origin,
        };
        if matches!(source, Source::Disk) && request < FIRST && hit.meta().created < began {
            self.left_by_earlier_run += 1;
        }
        self.latencies[source as usize].record(u64::try_from(took.as_nanos())?)?;
        Ok(())
    }

    fn add(&mut self, other: &Self) -> Result<(), Failure> {
        for (mine, other) in self.latencies.iter_mut().zip(&other.latencies) {
            mine.add(other)?;
        }
        self.left_by_earlier_run += other.left_by_earlier_run;
        Ok(())
    }
}

/// What the readers share.
struct Shared {
    runtime: RuntimeHandle,
    products: Region<Product, u32>,
    origin: Arc<Origin>,
    trace: Vec<u32>,
    next: AtomicUsize,
    bar: ProgressBar,
    began: Timestamp,
}

/// Requests every key of the trace once, in its order, a few at a time.
pub(crate) async fn replay(
    runtime: &RuntimeHandle,
    products: &Region<Product, u32>,
    origin: &Arc<Origin>,
    trace: Vec<u32>,
) -> Result<Replayed, Failure> {
    let bar = ProgressBar::new(trace.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} requests, {per_sec}")?);
    let shared = Arc::new(Shared {
        runtime: runtime.clone(),
        products: products.clone(),
        origin: Arc::clone(origin),
        trace,
        next: AtomicUsize::new(0),
        bar,
        began: runtime.wall(),
    });
    let start = runtime.now();
    let readers: Vec<_> = (0..READERS).map(|_| runtime.spawn(read(Arc::clone(&shared)))).collect();
    let mut all = Replayed::new()?;
    for reader in readers {
        all.add(&reader.await??)?;
    }
    all.elapsed = runtime.now().since(start);
    shared.bar.finish_and_clear();
    match all.answers() {
        answers if answers == shared.trace.len() as u64 => Ok(all),
        answers => Err(format!("{answers} answers to {} requests", shared.trace.len()).into()),
    }
}

async fn read(shared: Arc<Shared>) -> Result<Replayed, Failure> {
    let Shared { runtime, products, origin, trace, .. } = &*shared;
    let mut seen = Replayed::new()?;
    loop {
        let request = shared.next.fetch_add(1, Ordering::Relaxed);
        let Some(&id) = trace.get(request) else { return Ok(seen) };
        let start = runtime.now();
        let product = products.get_or_load(&id, || origin.product(id)).await?;
        let took = runtime.now().since(start);
        if *product != Product::of(id) {
            return Err(format!("request {request}: a wrong answer for product {id}: {product:?}").into());
        }
        seen.note(&product, took, request, shared.began)?;
        shared.bar.inc(1);
    }
}
