//! The codec's limits, and the formats and compressors that it knows besides its own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::coding::MAX_VALUE;
use super::compressor::{Compressor, built_in_compressor};
use super::format::{Format, TypedFormat, Visit};
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};

/// Ids from here on are the application's.
const FIRST_OWN_ID: u8 = 128;

/// The id of `RkyvFormat`. The engine's, but each instance has its own types: it is made known like the application's
/// formats, and more than once.
pub(super) const RKYV: u8 = 5;

/// Limits of the codec, and the application's own formats and compressors.
#[derive(Clone)]
pub struct CodecOptions {
    pub(super) workers: Option<usize>,
    pub(super) queue: usize,
    pub(super) max_value: usize,
    /// `None`: as measured.
    pub(super) inline_decode: Option<usize>,
    pub(super) inline_encode: Option<usize>,
    pub(super) inline_compress: Option<usize>,
    pub(super) inline_budget: Duration,
    pub(super) formats: Vec<Arc<dyn Format>>,
    pub(super) compressors: Vec<Arc<dyn Compressor>>,
    #[cfg(feature = "zstd")]
    pub(super) dictionaries: Vec<super::ZstdDictionary>,
    #[cfg(feature = "zstd")]
    pub(super) max_dictionaries: usize,
}

impl Default for CodecOptions {
    fn default() -> Self {
        Self {
            workers: None,
            queue: 1024,
            max_value: MAX_VALUE,
            inline_decode: None,
            inline_encode: None,
            inline_compress: None,
            inline_budget: Duration::from_micros(30),
            formats: Vec::new(),
            compressors: Vec::new(),
            #[cfg(feature = "zstd")]
            dictionaries: Vec::new(),
            #[cfg(feature = "zstd")]
            max_dictionaries: 64,
        }
    }
}

impl CodecOptions {
    /// How many codec jobs run on the blocking pool at once. Default: the runtime's cores less one, at least 1.
    #[must_use]
    pub fn workers(mut self, jobs: usize) -> Self {
        self.workers = Some(jobs);
        self
    }

    /// How many codec jobs may wait; more are refused with [`ErrorKind::Overloaded`]. Default: 1,024.
    #[must_use]
    pub fn queue(mut self, jobs: usize) -> Self {
        self.queue = jobs;
        self
    }

    /// The largest encoded value in bytes, before compression: longer ones are not written
    /// ([`ErrorKind::TooLarge`]) and not read ([`ErrorKind::Decode`]). Default: 16 MiB.
    #[must_use]
    pub fn max_value(mut self, bytes: usize) -> Self {
        self.max_value = bytes;
        self
    }

    /// How long encoding or decoding a value may be expected to keep the caller's task busy; what would take longer
    /// goes to the pool. Default: 30 µs.
    ///
    /// What to expect is measured while the cache works, for each format and compressor (and each of its levels),
    /// encoding and decoding apart, in nanoseconds per byte. Values of up to 1 KiB are always coded in place, those above 256 KiB always on the pool;
    /// until enough was measured (and on a clock that stands still, a simulator's for example) the limit is 16 KiB, and
    /// 4 KiB where values are compressed too. [`Inspection::codec_rates`](crate::Inspection::codec_rates) shows what
    /// was measured. The limits below are fixed where they are set, and nothing is measured for them.
    #[must_use]
    pub fn inline_budget(mut self, budget: Duration) -> Self {
        self.inline_budget = budget;
        self
    }

    /// Up to how many bytes, unpacked, a value is decoded in place; 0: always on the pool. Default: as
    /// [measured](Self::inline_budget).
    #[must_use]
    pub fn inline_decode(mut self, bytes: usize) -> Self {
        self.inline_decode = Some(bytes);
        self
    }

    /// Up to how many bytes (as postcard counts them) a value is encoded in place; 0: always on the pool.
    /// Default: as [measured](Self::inline_budget).
    #[must_use]
    pub fn inline_encode(mut self, bytes: usize) -> Self {
        self.inline_encode = Some(bytes);
        self
    }

    /// As [`inline_encode`](Self::inline_encode), for values that are compressed too.
    #[must_use]
    pub fn inline_compress(mut self, bytes: usize) -> Self {
        self.inline_compress = Some(bytes);
        self
    }

    /// Makes a format of the application's known, by an id of 128-255, so that its frames can be read. Also takes an
    /// `RkyvFormat`, for entries that a tier wrote while it used that format.
    #[must_use]
    pub fn format(mut self, format: Arc<dyn Format>) -> Self {
        self.formats.push(format);
        self
    }

    /// Makes a compressor of the application's known, by an id of 128-255, so that its frames can be read.
    #[must_use]
    pub fn compressor(mut self, compressor: Arc<dyn Compressor>) -> Self {
        self.compressors.push(compressor);
        self
    }

    /// Makes a dictionary known, for entries that were written with it: a tier's former one, or one that another process
    /// trained and that no tier has.
    #[cfg(feature = "zstd")]
    #[must_use]
    pub fn dictionary(mut self, dictionary: &super::ZstdDictionary) -> Self {
        self.dictionaries.push(dictionary.clone());
        self
    }

    /// How many dictionaries are kept for reading; the one known longest gives way to a new one, and is loaded again from
    /// its tier when an entry needs it. Default: 64.
    #[cfg(feature = "zstd")]
    #[must_use]
    pub fn max_dictionaries(mut self, dictionaries: usize) -> Self {
        self.max_dictionaries = dictionaries;
        self
    }

    /// Makes known what `backend` encodes with, where that is the application's own and not known yet.
    #[must_use]
    pub fn backend(mut self, backend: &Arc<dyn Backend>) -> Self {
        let (format, compressor) = (backend.value_format(), backend.compressor());
        let known = |f: &Arc<dyn Format>| (f.id(), f.name()) == (format.id(), format.name());
        if format.id() == RKYV || format.id() >= FIRST_OWN_ID && !self.formats.iter().any(known) {
            self.formats.push(Arc::new(Of(Arc::clone(backend))));
        }
        let identity = |c: &dyn Compressor| (c.id(), c.dictionary(), c.name());
        let known = |c: &Arc<dyn Compressor>| identity(&**c) == identity(compressor);
        let own = compressor.id() >= FIRST_OWN_ID || compressor.dictionary() != 0;
        if own && !self.compressors.iter().any(known) {
            self.compressors.push(Arc::new(Of(Arc::clone(backend))));
        }
        self
    }

    /// Whether it can work.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming what cannot: no workers, no queue, no value size, an id that is the engine's or
    /// given twice, an odd alignment.
    pub fn validate(&self) -> Result<()> {
        if self.workers == Some(0) {
            return config("the codec pool needs at least one worker");
        }
        if self.queue == 0 {
            return config("the codec pool needs a queue of at least one job");
        }
        if self.max_value == 0 {
            return config("the largest encoded value must be at least one byte");
        }
        for (index, format) in self.formats.iter().enumerate() {
            let (id, name) = (format.id(), format.name());
            if (id, name) == (RKYV, "rkyv") {
                continue;
            }
            own_id("format", id, name)?;
            if self.formats[..index].iter().any(|other| other.id() == id) {
                return config(format!("format id {id} is registered twice, last by `{name}`"));
            }
            let alignment = format.alignment();
            if !alignment.is_power_of_two() || alignment > 64 {
                return config(format!(
                    "format `{name}` asks for an alignment of {alignment}; it may be 1, 2, … 64"
                ));
            }
        }
        for (index, compressor) in self.compressors.iter().enumerate() {
            let (id, dictionary, name) = (compressor.id(), compressor.dictionary(), compressor.name());
            if dictionary != 0 && built_in_compressor(id).is_some_and(|known| known.name() == name) {
                // The engine's, with a dictionary: which is the same wherever its id is.
                continue;
            }
            own_id("compressor", id, name)?;
            let same = |other: &Arc<dyn Compressor>| (other.id(), other.dictionary()) == (id, dictionary);
            if self.compressors[..index].iter().any(same) {
                return config(format!("compressor id {id} is registered twice, last by `{name}`"));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for CodecOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodecOptions")
            .field("workers", &self.workers)
            .field("queue", &self.queue)
            .field("max_value", &self.max_value)
            .field("inline_decode", &self.inline_decode)
            .field("inline_encode", &self.inline_encode)
            .field("inline_compress", &self.inline_compress)
            .field("inline_budget", &self.inline_budget)
            .field("formats", &self.formats.iter().map(|f| f.name()).collect::<Vec<_>>())
            .field("compressors", &self.compressors.iter().map(|c| c.name()).collect::<Vec<_>>())
            .finish()
    }
}

/// The format and the compressor of a backend.
struct Of(Arc<dyn Backend>);

impl Format for Of {
    fn id(&self) -> u8 {
        self.0.value_format().id()
    }

    fn name(&self) -> &'static str {
        self.0.value_format().name()
    }

    fn alignment(&self) -> usize {
        self.0.value_format().alignment()
    }

    fn encode(&self, value: &dyn erased_serde::Serialize, out: &mut Vec<u8>) -> Result<()> {
        self.0.value_format().encode(value, out)
    }

    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<()> {
        self.0.value_format().decode(bytes, visit)
    }

    fn typed(&self) -> Option<&dyn TypedFormat> {
        self.0.value_format().typed()
    }
}

impl Compressor for Of {
    fn id(&self) -> u8 {
        self.0.compressor().id()
    }

    fn name(&self) -> &'static str {
        self.0.compressor().name()
    }

    fn dictionary(&self) -> u32 {
        self.0.compressor().dictionary()
    }

    fn min_size(&self) -> usize {
        self.0.compressor().min_size()
    }

    fn level(&self) -> i32 {
        self.0.compressor().level()
    }

    fn compress(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.0.compressor().compress(plain, out)
    }

    fn decompress(&self, packed: &[u8], size: usize) -> Result<Vec<u8>> {
        self.0.compressor().decompress(packed, size)
    }

    fn decompress_into(&self, packed: &[u8], size: usize, out: &mut Vec<u8>) -> Result<()> {
        self.0.compressor().decompress_into(packed, size, out)
    }
}

fn own_id(what: &str, id: u8, name: &str) -> Result<()> {
    if id < FIRST_OWN_ID {
        return config(format!("{what} `{name}` has id {id}, which is the engine's; take one of 128-255"));
    }
    Ok(())
}

fn config<T>(message: impl Into<Arc<str>>) -> Result<T> {
    Err(Error::new(ErrorKind::Config, message))
}
