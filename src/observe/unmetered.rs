//! What stands in for the metrics when the feature `metrics` is off: nothing, in no time.

use std::sync::Arc;

use crate::codec::CodecWork;
use crate::composition::Engine;
use crate::runtime::RuntimeHandle;
use crate::value::BackendLabel;

#[derive(Debug)]
pub(crate) struct Meter;

#[derive(Debug)]
pub(crate) struct TierMeter;

#[derive(Debug, Default)]
pub(crate) struct RegionMeter;

/// When something began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Began;

// Nothing is carried through a hit, so that nothing remains of the metrics in it.
const _: () = assert!(
    size_of::<Began>() == 0
        && size_of::<Meter>() == 0
        && size_of::<TierMeter>() == 0
        && size_of::<RegionMeter>() == 0
);

impl Began {
    #[inline(always)]
    pub(crate) fn now(_: &RuntimeHandle) -> Self {
        Self
    }

    #[inline(always)]
    pub(crate) fn sampled(_: &RuntimeHandle) -> Option<Self> {
        None
    }
}

impl Meter {
    pub(crate) fn new(_: &str) -> Self {
        Self
    }

    pub(crate) fn tier(&self, _: &BackendLabel) -> TierMeter {
        TierMeter
    }

    pub(crate) fn region(&self, _: &str) -> Arc<RegionMeter> {
        Arc::default()
    }

    pub(crate) fn codec(&self, _: &RuntimeHandle) -> Option<CodecWork> {
        None
    }

    pub(crate) fn publish(&self, _: &Engine) {}
}

impl TierMeter {
    pub(crate) fn read(&self, _: Began, _: &RuntimeHandle) {}

    pub(crate) fn wrote(&self, _: Began, _: &RuntimeHandle) {}

    pub(crate) fn sending(&self, _: bool, _: usize) {}

    pub(crate) fn called(&self, _: bool, _: Began, _: &RuntimeHandle) {}
}

impl RegionMeter {
    #[inline(always)]
    pub(crate) fn hit_at_once(&self, _: Option<Began>, _: &RuntimeHandle) {}

    pub(crate) fn read(&self, _: bool, _: Began, _: &RuntimeHandle) {}

    pub(crate) fn wrote(&self, _: bool, _: Began, _: &RuntimeHandle) {}

    pub(crate) fn loaded(&self, _: bool, _: Began, _: &RuntimeHandle) {}

    pub(crate) fn joined(&self) {}
}
