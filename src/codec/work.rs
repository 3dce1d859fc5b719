//! How long encoding, decoding and compression take: a histogram each with the feature `metrics`, else nothing.

#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    Encode,
    Decode,
    Compress,
    Decompress,
}

#[cfg(feature = "metrics")]
pub(crate) struct CodecWork {
    runtime: crate::runtime::RuntimeHandle,
    /// By [`Work`].
    seconds: [metrics::Histogram; 4],
}

#[cfg(feature = "metrics")]
impl CodecWork {
    pub(crate) fn new(runtime: crate::runtime::RuntimeHandle, seconds: [metrics::Histogram; 4]) -> Self {
        Self { runtime, seconds }
    }

    pub(super) fn time<T>(&self, work: Work, run: impl FnOnce() -> T) -> T {
        let began = self.runtime.now();
        let output = run();
        self.seconds[work as usize].record(self.runtime.now().since(began).as_secs_f64());
        output
    }
}

/// Cannot be: what is compiled for it goes away.
#[cfg(not(feature = "metrics"))]
pub(crate) enum CodecWork {}

#[cfg(not(feature = "metrics"))]
impl CodecWork {
    pub(super) fn time<T>(&self, _: Work, _: impl FnOnce() -> T) -> T {
        match *self {}
    }
}

/// Runs `run`, and tells how long it took if somebody wants to know.
pub(super) fn timed<T>(told: Option<&CodecWork>, work: Work, run: impl FnOnce() -> T) -> T {
    match told {
        Some(told) => told.time(work, run),
        None => run(),
    }
}
