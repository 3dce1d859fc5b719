//! Zstandard dictionaries: what values have in common, taught to the compressor beforehand.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ::zstd::zstd_safe::{CCtx, CParameter, DDict, get_error_name};
use twox_hash::XxHash3_64;

use super::compressor::Compressor;
use super::zstd::{ZstdCompressor, compress, failed, unpack};
use crate::error::{Error, ErrorKind, Result};
use crate::value::Raw;

/// The largest dictionary in bytes.
pub(crate) const MAX_DICTIONARY: usize = 1 << 20;

/// Contexts that a dictionary keeps, whatever their level.
const CONTEXTS: usize = 2;

/// Values shorter than this stay plain: hardly any gets shorter than zstd's own header.
pub(super) const MIN_SIZE: usize = 32;

/// A dictionary for Zstandard (feature `zstd`): small values that resemble each other shrink to a third of what they
/// shrink to without one, or less. Cheap to clone.
///
/// Its [`id`](Self::id) is made of its bytes and stands in every frame written with it. A region can
/// [train](crate::RegionBuilder::dictionary) its own; one made beforehand is given to a tier:
///
/// ```
/// use tierkeep::codec::{Compressor, ZstdCompressor, ZstdDictionary};
///
/// let record = |n: u32| format!(r#"{{"id":{n},"city":"Reykjavik","roles":["reader","writer"],"active":true}}"#);
/// let samples: Vec<_> = (0..2_000).map(record).collect();
/// let dictionary = ZstdDictionary::train(&samples, 4 << 10)?;
///
/// let (plain, taught) = (ZstdCompressor::default(), ZstdCompressor::default().with_dictionary(&dictionary));
/// let (mut long, mut short) = (Vec::new(), Vec::new());
/// plain.compress(record(7_777).as_bytes(), &mut long)?;
/// taught.compress(record(7_777).as_bytes(), &mut short)?;
/// assert!(short.len() * 2 < long.len());
///
/// // It can be kept anywhere, and read back.
/// let again = ZstdDictionary::new(dictionary.as_bytes().to_vec())?;
/// assert_eq!(again.id(), dictionary.id());
/// # Ok::<(), tierkeep::Error>(())
/// ```
#[derive(Clone)]
pub struct ZstdDictionary(Arc<Inner>);

struct Inner {
    id: u32,
    bytes: Raw,
    unpacking: DDict<'static>,
    /// With the dictionary loaded, by level.
    compressing: Mutex<Vec<(i32, CCtx<'static>)>>,
}

impl ZstdDictionary {
    /// A dictionary of these bytes: as [`train`](Self::train) makes them, the `zstd` program, or any text that values
    /// have parts in common with.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if they are none, more than 1 MiB, or damaged.
    pub fn new(bytes: impl Into<Raw>) -> Result<Self> {
        let bytes = bytes.into();
        if bytes.is_empty() || bytes.len() > MAX_DICTIONARY {
            let message = format!("a dictionary has 1 to {MAX_DICTIONARY} bytes, not {}", bytes.len());
            return Err(Error::new(ErrorKind::Config, message));
        }
        let unpacking = DDict::try_create(&bytes);
        let unpacking =
            unpacking.ok_or_else(|| Error::new(ErrorKind::Config, "the dictionary is damaged"))?;
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the id")]
        let id = (XxHash3_64::oneshot(&bytes) as u32).max(1); // 0 stands for none
        Ok(Self(Arc::new(Inner { id, bytes, unpacking, compressing: Mutex::default() })))
    }

    /// A dictionary of up to `max_size` bytes of what `samples` have in common. Takes about 50 ms for half a megabyte of
    /// samples: not for an executor's threads. The samples should be about thirty times as many bytes as the dictionary.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if there are too few samples, or if they have nothing in common.
    pub fn train<S: AsRef<[u8]>>(samples: &[S], max_size: usize) -> Result<Self> {
        let untrained = |error| {
            let message = format!("no dictionary could be trained from {} samples", samples.len());
            Error::new(ErrorKind::Config, message).with_source(error)
        };
        Self::new(
            ::zstd::dict::from_samples(samples, max_size.clamp(256, MAX_DICTIONARY)).map_err(untrained)?,
        )
    }

    /// What stands in the frames: 32 bits of a hash of the bytes, never 0.
    pub fn id(&self) -> u32 {
        self.0.id
    }

    /// The dictionary's bytes, for keeping it elsewhere.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    pub(super) fn compress(&self, level: i32, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut context = self.context(level)?;
        compress(&mut context, plain, out)?;
        // One that failed is not used again.
        let mut kept = self.0.compressing.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < CONTEXTS {
            kept.push((level, context));
        }
        Ok(())
    }

    pub(super) fn unpack(&self, packed: &[u8], size: usize, out: &mut Vec<u8>) -> Result<()> {
        unpack(packed, size, out, |context, out| {
            context.decompress_using_ddict(out, packed, &self.0.unpacking)
        })
    }

    fn context(&self, level: i32) -> Result<CCtx<'static>> {
        let mut kept = self.0.compressing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = kept.iter().position(|&(of, _)| of == level) {
            return Ok(kept.swap_remove(index).1);
        }
        drop(kept);
        let mut context = CCtx::try_create().ok_or_else(|| failed("no memory for its context"))?;
        let code = |code| failed(get_error_name(code));
        context.set_parameter(CParameter::CompressionLevel(level)).map_err(code)?;
        // The frame around it names the dictionary.
        context.set_parameter(CParameter::DictIdFlag(false)).map_err(code)?;
        context.load_dictionary(&self.0.bytes).map_err(code)?;
        Ok(context)
    }
}

impl fmt::Debug for ZstdDictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZstdDictionary").field("id", &self.0.id).field("bytes", &self.0.bytes.len()).finish()
    }
}

impl ZstdCompressor {
    /// This level with a dictionary. Values under 32 bytes stay plain, unless [told](ZstdDictionaryCompressor::with_min_size)
    /// otherwise.
    #[must_use]
    pub fn with_dictionary(self, dictionary: &ZstdDictionary) -> ZstdDictionaryCompressor {
        ZstdDictionaryCompressor { level: self.level(), min_size: MIN_SIZE, dictionary: dictionary.clone() }
    }
}

/// Zstandard with a dictionary that is given: see [`ZstdCompressor::with_dictionary`].
///
/// What a tier's backend compresses with is known to its cache. For entries that a tier wrote with another dictionary,
/// add that with [`CodecOptions::dictionary`](super::CodecOptions::dictionary).
#[derive(Debug, Clone)]
pub struct ZstdDictionaryCompressor {
    level: i32,
    min_size: usize,
    dictionary: ZstdDictionary,
}

impl ZstdDictionaryCompressor {
    /// Values shorter than `bytes` are stored plain.
    #[must_use]
    pub fn with_min_size(mut self, bytes: usize) -> Self {
        self.min_size = bytes;
        self
    }
}

impl Compressor for ZstdDictionaryCompressor {
    fn id(&self) -> u8 {
        ZstdCompressor::DEFAULT.id()
    }

    fn name(&self) -> &'static str {
        ZstdCompressor::DEFAULT.name()
    }

    fn dictionary(&self) -> u32 {
        self.dictionary.id()
    }

    fn min_size(&self) -> usize {
        self.min_size
    }

    fn level(&self) -> i32 {
        self.level
    }

    fn compress(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.dictionary.compress(self.level, plain, out)
    }

    fn decompress(&self, packed: &[u8], size: usize) -> Result<Vec<u8>> {
        let mut plain = Vec::new();
        self.decompress_into(packed, size, &mut plain)?;
        Ok(plain)
    }

    fn decompress_into(&self, packed: &[u8], size: usize, out: &mut Vec<u8>) -> Result<()> {
        self.dictionary.unpack(packed, size, out)
    }
}
