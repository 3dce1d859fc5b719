//! A region's own dictionary: sampled from what it writes, trained on the blocking pool, and again when it no longer
//! fits.

use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::compressor::Compressor;
use super::dictionary::{MIN_SIZE, ZstdDictionary};
use super::dictionary_options::{DictionaryInspection, DictionaryOptions, DictionaryState};
use super::publishing::Publishing;
use super::zstd::ZstdCompressor;
use crate::error::{Error, ErrorKind, Result};
use crate::value::Timestamp;

/// Values above this size are not sampled: a dictionary gives them little.
const LARGEST_SAMPLE: usize = 16 << 10;

/// After so many values the ratio is looked at.
const WINDOW: u64 = 1_000;

/// A new dictionary must save this part of the bytes more than what there is, in percent.
const GAIN: u64 = 5;

/// After a training in vain so many values pass before sampling begins again: doubled each time, up to the second.
const REST: u64 = 10_000;
const LONGEST_REST: u64 = 1 << 20;

/// The dictionary of one region.
pub struct RegionDictionary {
    region: Box<str>,
    options: DictionaryOptions,
    current: ArcSwapOption<Current>,
    state: AtomicU8,
    samples: Mutex<Samples>,
    /// Bytes before and after compression, and values, in this window.
    plain: AtomicU64,
    packed: AtomicU64,
    values: AtomicU64,
    /// Of the last window, as bits.
    ratio_now: AtomicU64,
    /// Values until sampling begins again after a training in vain, and how many it was the last time.
    rest: AtomicU64,
    last_rest: AtomicU64,
    publishing: Publishing,
    /// The level of the tier that wrote last.
    level: AtomicI32,
    trained: AtomicU64,
    in_vain: AtomicU64,
}

struct Current {
    dictionary: ZstdDictionary,
    version: u32,
    /// `None`: that of the first window.
    ratio: Option<f64>,
}

/// Samples, one after another.
#[derive(Default)]
pub(crate) struct Samples {
    bytes: Vec<u8>,
    sizes: Vec<usize>,
}

/// What came of a training.
pub(crate) struct Trained {
    pub(crate) dictionary: ZstdDictionary,
    ratio: f64,
}

impl RegionDictionary {
    pub(super) fn new(region: &str, options: DictionaryOptions) -> Self {
        let start = options.start.clone();
        let state = if start.is_some() { DictionaryState::Watching } else { DictionaryState::Sampling };
        let current = start.map(|dictionary| Arc::new(Current { dictionary, version: 1, ratio: None }));
        Self {
            region: region.into(),
            options,
            current: ArcSwapOption::new(current),
            state: AtomicU8::new(state as u8),
            samples: Mutex::default(),
            plain: AtomicU64::new(0),
            packed: AtomicU64::new(0),
            values: AtomicU64::new(0),
            ratio_now: AtomicU64::new(0),
            rest: AtomicU64::new(0),
            last_rest: AtomicU64::new(REST / 2),
            publishing: Publishing::default(),
            level: AtomicI32::new(ZstdCompressor::DEFAULT.level()),
            trained: AtomicU64::new(0),
            in_vain: AtomicU64::new(0),
        }
    }

    /// The dictionary in use.
    pub fn current(&self) -> Option<ZstdDictionary> {
        self.current.load().as_ref().map(|current| current.dictionary.clone())
    }

    /// How it stands.
    pub fn inspect(&self) -> DictionaryInspection {
        let current = self.current.load();
        let current = current.as_ref();
        DictionaryInspection {
            region: self.region.to_string(),
            state: self.state(),
            dictionary: current.map_or(0, |current| current.dictionary.id()),
            version: current.map_or(0, |current| current.version),
            ratio: current.and_then(|current| current.ratio).unwrap_or(0.0),
            ratio_now: f64::from_bits(self.ratio_now.load(Ordering::Relaxed)),
            sampled: self.samples().bytes.len(),
            trained: self.trained.load(Ordering::Relaxed),
            in_vain: self.in_vain.load(Ordering::Relaxed),
        }
    }

    /// The compressor of the region's next value, in place of a tier's plain one.
    pub(super) fn compressor(self: &Arc<Self>, plain: &dyn Compressor) -> Live {
        self.level.store(plain.level(), Ordering::Relaxed);
        let plain = ZstdCompressor::new(plain.level()).with_min_size(plain.min_size());
        Live { region: Arc::clone(self), plain, current: self.current.load_full() }
    }

    /// Takes the samples if there are enough; from now on it is [training](DictionaryState::Training).
    pub(crate) fn take_samples(&self) -> Option<Samples> {
        self.turn(DictionaryState::Due, DictionaryState::Training)
            .then(|| std::mem::take(&mut *self.samples()))
    }

    /// Whether enough samples are there.
    pub(crate) fn is_due(&self) -> bool {
        self.state() == DictionaryState::Due
    }

    /// A dictionary of the samples, if it is better than what there is. Takes long.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if none can be made of them, [`ErrorKind::Decode`] if what it compresses does not unpack to
    /// what it was.
    pub(crate) fn train(&self, samples: &Samples) -> Result<Option<Trained>> {
        let samples = samples.split();
        // Judged by what it was not trained with.
        let (judged, taught): (Vec<_>, Vec<_>) =
            samples.iter().enumerate().partition(|(index, _)| index % 5 == 4);
        let [judged, taught] =
            [judged, taught].map(|some| some.into_iter().map(|(_, sample)| *sample).collect::<Vec<_>>());
        let dictionary = ZstdDictionary::train(&taught, self.options.size)?;
        let level = self.level.load(Ordering::Relaxed);
        let new = ZstdCompressor::new(level).with_dictionary(&dictionary);
        let (plain, packed) = (total(&judged), packed(&judged, &new)?);
        let before = match self.current() {
            Some(current) => self::packed(&judged, &ZstdCompressor::new(level).with_dictionary(&current))?,
            None => self::packed(&judged, &ZstdCompressor::new(level))?,
        };
        let better = packed * 100 <= before * (100 - GAIN);
        Ok(better.then(|| Trained { dictionary, ratio: ratio(plain, packed) }))
    }

    /// Compresses with this one from now on.
    pub(crate) fn adopt(&self, trained: Trained) {
        let Trained { dictionary, ratio } = trained;
        self.use_next(dictionary, Some(ratio));
        self.trained.fetch_add(1, Ordering::Relaxed);
        self.last_rest.store(REST / 2, Ordering::Relaxed);
        self.turn(DictionaryState::Training, DictionaryState::Watching);
    }

    /// The training gave nothing better: waits a while, and takes the ratio there is as the one to keep.
    pub(crate) fn in_vain(&self) {
        self.in_vain.fetch_add(1, Ordering::Relaxed);
        let rest = (self.last_rest.load(Ordering::Relaxed) * 2).min(LONGEST_REST);
        self.last_rest.store(rest, Ordering::Relaxed);
        self.rest.store(rest, Ordering::Relaxed);
        self.current.rcu(|current| {
            current.as_ref().map(|current| {
                let (dictionary, version) = (current.dictionary.clone(), current.version);
                Arc::new(Current { dictionary, version, ratio: None })
            })
        });
        self.turn(DictionaryState::Training, DictionaryState::Watching);
    }

    /// A dictionary that an earlier process trained was found in a tier, which keeps it for so long (`None`: for ever):
    /// used, unless there is one. Samples are taken on: whether it still fits is for the training to say.
    pub(crate) fn found(&self, dictionary: &ZstdDictionary, kept: Option<Duration>) {
        if self.state() == DictionaryState::Sampling && self.current.load().is_none() {
            // Not stored for less long than it was.
            self.publishing.wanted_for(kept);
            self.use_next(dictionary.clone(), None);
        }
    }

    /// The region has written a value that is kept for so long; `None`: for ever.
    pub(crate) fn written_for(&self, kept: Option<Duration>) {
        self.publishing.wanted_for(kept);
    }

    /// The dictionary in use, if it is time to store it in the tiers, and for how long.
    pub(crate) fn to_publish(&self, now: Timestamp) -> Option<(ZstdDictionary, Duration)> {
        if !self.publishing.is_due(now) {
            return None;
        }
        let current = self.current()?;
        Some((current, self.publishing.take(now)?))
    }

    /// For how long a dictionary is to be stored that is stored now.
    pub(crate) fn publish(&self, now: Timestamp) -> Duration {
        self.publishing.begin(now)
    }

    pub(super) fn unpublished(&self) {
        self.publishing.forget();
    }

    fn use_next(&self, dictionary: ZstdDictionary, ratio: Option<f64>) {
        let version = self.current.load().as_ref().map_or(0, |current| current.version) + 1;
        self.current.store(Some(Arc::new(Current { dictionary, version, ratio })));
        for counter in [&self.plain, &self.packed, &self.values] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// Takes a sample, unless somebody else does at this moment.
    fn offer(&self, plain: &[u8]) {
        if self.state() != DictionaryState::Sampling || plain.len() > LARGEST_SAMPLE || plain.is_empty() {
            return;
        }
        let mut samples = match self.samples.try_lock() {
            Ok(samples) => samples,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        samples.bytes.extend_from_slice(plain);
        samples.sizes.push(plain.len());
        if samples.bytes.len() >= self.options.samples {
            self.turn(DictionaryState::Sampling, DictionaryState::Due);
        }
    }

    /// A value was compressed: looks at the ratio now and then, and for a new dictionary where it has become bad.
    fn note(&self, current: Option<&Current>, plain: usize, packed: usize) {
        let resting = |rest: u64| rest.checked_sub(1);
        if let Ok(1) = self.rest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, resting)
            && current.is_none()
        {
            self.turn(DictionaryState::Watching, DictionaryState::Sampling);
        }
        let Some(current) = current else { return };
        self.publishing.value();
        let plain = self.plain.fetch_add(plain as u64, Ordering::Relaxed) + plain as u64;
        let packed = self.packed.fetch_add(packed as u64, Ordering::Relaxed) + packed as u64;
        if self.values.fetch_add(1, Ordering::Relaxed) + 1 != WINDOW {
            return;
        }
        for counter in [&self.plain, &self.packed, &self.values] {
            counter.store(0, Ordering::Relaxed);
        }
        let now = ratio(plain, packed);
        self.ratio_now.store(now.to_bits(), Ordering::Relaxed);
        match current.ratio {
            Some(then) if now * self.options.drift < then && self.rest.load(Ordering::Relaxed) == 0 => {
                self.turn(DictionaryState::Watching, DictionaryState::Sampling);
            }
            Some(_) => {}
            None => {
                let (dictionary, version) = (current.dictionary.clone(), current.version);
                let known = Some(Arc::new(Current { dictionary, version, ratio: Some(now) }));
                self.current.rcu(|latest| match latest {
                    Some(latest) if latest.version == version && latest.ratio.is_none() => known.clone(),
                    other => other.clone(),
                });
            }
        }
    }

    fn state(&self) -> DictionaryState {
        use DictionaryState::{Due, Sampling, Training, Watching};
        let states = [Sampling, Due, Training, Watching];
        states[usize::from(self.state.load(Ordering::Acquire)) % states.len()]
    }

    fn turn(&self, from: DictionaryState, to: DictionaryState) -> bool {
        let (from, to) = (from as u8, to as u8);
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RegionDictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inspect().fmt(f)
    }
}

impl Samples {
    fn split(&self) -> Vec<&[u8]> {
        let mut rest = &self.bytes[..];
        let sizes = self.sizes.iter();
        sizes
            .map_while(|&size| {
                let (sample, others) = rest.split_at_checked(size)?;
                rest = others;
                Some(sample)
            })
            .collect()
    }
}

/// A tier's compressor for one value of a region: with the dictionary that the region has at the time, if any.
pub(super) struct Live {
    region: Arc<RegionDictionary>,
    plain: ZstdCompressor,
    current: Option<Arc<Current>>,
}

impl Compressor for Live {
    fn id(&self) -> u8 {
        self.plain.id()
    }

    fn name(&self) -> &'static str {
        self.plain.name()
    }

    fn dictionary(&self) -> u32 {
        self.current.as_ref().map_or(0, |current| current.dictionary.id())
    }

    fn min_size(&self) -> usize {
        // Shorter ones are sampled too, and compressed once there is a dictionary.
        MIN_SIZE
    }

    fn level(&self) -> i32 {
        self.plain.level()
    }

    fn compress(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.region.offer(plain);
        match &self.current {
            Some(current) => current.dictionary.compress(self.plain.level(), plain, out)?,
            // Not shorter, and so stored plain.
            None if plain.len() < self.plain.min_size() => out.extend_from_slice(plain),
            None => self.plain.compress(plain, out)?,
        }
        self.region.note(self.current.as_deref(), plain.len(), out.len().min(plain.len()));
        Ok(())
    }

    fn decompress(&self, packed: &[u8], size: usize) -> Result<Vec<u8>> {
        match &self.current {
            Some(current) => self.plain.with_dictionary(&current.dictionary).decompress(packed, size),
            None => self.plain.decompress(packed, size),
        }
    }
}

/// What the values take in all, compressed where that is shorter.
///
/// # Errors
/// [`ErrorKind::Decode`] if one does not unpack to what it was.
fn packed(values: &[&[u8]], compressor: &dyn Compressor) -> Result<u64> {
    let (mut out, mut back, mut total) = (Vec::new(), Vec::new(), 0);
    for value in values {
        if value.len() < compressor.min_size() {
            total += value.len() as u64;
            continue;
        }
        out.clear();
        back.clear();
        compressor.compress(value, &mut out)?;
        compressor.decompress_into(&out, value.len(), &mut back)?;
        if back != *value {
            return Err(Error::new(ErrorKind::Decode, "a value unpacks to another one with this dictionary"));
        }
        total += out.len().min(value.len()) as u64;
    }
    Ok(total)
}

fn total(values: &[&[u8]]) -> u64 {
    values.iter().map(|value| value.len() as u64).sum()
}

fn ratio(plain: u64, packed: u64) -> f64 {
    plain as f64 / packed.max(1) as f64
}
