//! A region's dictionary as applications see it: how it is to be trained, and how it stands.

use super::dictionary::{MAX_DICTIONARY, ZstdDictionary};
use crate::error::{Error, ErrorKind, Result};

/// How a region trains its dictionary: see [`RegionBuilder::dictionary`](crate::RegionBuilder::dictionary).
#[derive(Debug, Clone)]
pub struct DictionaryOptions {
    pub(super) size: usize,
    pub(super) samples: usize,
    pub(super) drift: f64,
    pub(super) start: Option<ZstdDictionary>,
}

impl Default for DictionaryOptions {
    fn default() -> Self {
        Self { size: 16 << 10, samples: 512 << 10, drift: 1.5, start: None }
    }
}

impl DictionaryOptions {
    /// The largest dictionary in bytes. Default: 16 KiB.
    #[must_use]
    pub fn size(mut self, bytes: usize) -> Self {
        self.size = bytes;
        self
    }

    /// How many bytes of values (of up to 16 KiB each) are sampled for a training; they are kept until it is over.
    /// About thirty times the dictionary's size is right. Default: 512 KiB.
    #[must_use]
    pub fn samples(mut self, bytes: usize) -> Self {
        self.samples = bytes;
        self
    }

    /// By which factor a thousand values must compress worse than at the training for a new one to be tried. Default:
    /// 1.5.
    #[must_use]
    pub fn drift(mut self, factor: f64) -> Self {
        self.drift = factor;
        self
    }

    /// The dictionary to begin with: one trained earlier, or made by hand. It is stored in the tiers right after the
    /// region's first write. Default: none, so the region's first values are compressed without.
    #[must_use]
    pub fn start_with(mut self, dictionary: &ZstdDictionary) -> Self {
        self.start = Some(dictionary.clone());
        self
    }

    /// # Errors
    /// [`ErrorKind::Config`], naming what cannot work.
    pub(crate) fn validate(&self) -> Result<()> {
        let config = |message: &str| Err(Error::new(ErrorKind::Config, message));
        if !(256..=MAX_DICTIONARY).contains(&self.size) {
            return config("a dictionary's size must be 256 bytes to 1 MiB");
        }
        if self.samples < self.size {
            return config("a dictionary needs more bytes of samples than it has itself");
        }
        if self.drift.is_nan() || self.drift < 1.0 {
            return config("a dictionary's drift is a factor of at least 1");
        }
        Ok(())
    }
}

/// What a region does about its dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub enum DictionaryState {
    /// It takes samples.
    Sampling,
    /// It has enough samples; the training begins with the region's next write.
    Due,
    /// A dictionary is being trained.
    Training,
    /// It watches the ratio, or waits a while after a training in vain.
    Watching,
}

/// How a region's dictionary stands.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct DictionaryInspection {
    /// The region, as its keys begin: name and version.
    pub region: String,
    /// What it does.
    pub state: DictionaryState,
    /// The dictionary in use, by id; 0: none yet.
    pub dictionary: u32,
    /// How many dictionaries it has used so far.
    pub version: u32,
    /// How many times longer values were than their compressed form when the dictionary was trained, or came into use.
    pub ratio: f64,
    /// The same of the last thousand values.
    pub ratio_now: f64,
    /// Bytes of samples held.
    pub sampled: usize,
    /// Trainings that gave a better dictionary.
    pub trained: u64,
    /// Trainings that did not.
    pub in_vain: u64,
}
