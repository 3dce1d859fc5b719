//! Compressors: how encoded bytes shrink.

use crate::error::Result;
#[cfg(feature = "gzip")]
use crate::error::{Error, ErrorKind};

/// A compression algorithm.
pub trait Compressor: Send + Sync + 'static {
    /// Stands in each frame, so it must never change its meaning. 0 is "plain", 1-127 are the engine's, 128-255 yours.
    fn id(&self) -> u8;

    /// For messages and `inspect()`.
    fn name(&self) -> &'static str;

    /// The dictionary it uses, by an id of its own; 0 (default): none. Frames name it, and each is registered apart.
    fn dictionary(&self) -> u32 {
        0
    }

    /// Values shorter than this many bytes are stored plain. Default: 0.
    fn min_size(&self) -> usize {
        0
    }

    /// How hard it tries, on a scale of its own. Tiers whose compressors agree in id, dictionary, level and smallest size
    /// share one encoding. Default: 0.
    fn level(&self) -> i32 {
        0
    }

    /// Appends the compressed form of `plain` to `out`. The engine stores the plain form if it is not longer.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode) if the algorithm fails.
    fn compress(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<()>;

    /// The plain form of `packed`, of exactly `size` bytes (which the engine has checked against its limit).
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if `packed` is damaged or does not unpack to `size` bytes. Must
    /// not allocate more than about `size` bytes.
    fn decompress(&self, packed: &[u8], size: usize) -> Result<Vec<u8>>;

    /// As [`decompress`](Self::decompress), appended to `out`: for compressors that can use a buffer again. What `out`
    /// holds after an error is of no interest.
    ///
    /// # Errors
    /// As [`decompress`](Self::decompress).
    fn decompress_into(&self, packed: &[u8], size: usize, out: &mut Vec<u8>) -> Result<()> {
        let plain = self.decompress(packed, size)?;
        if out.is_empty() {
            *out = plain;
        } else {
            out.extend_from_slice(&plain);
        }
        Ok(())
    }
}

/// The engine's compressor with `id`, without a dictionary.
pub(crate) fn built_in_compressor(id: u8) -> Option<&'static dyn Compressor> {
    Some(match id {
        0 => &PassthroughCompressor,
        #[cfg(feature = "gzip")]
        1 => &GzipCompressor::DEFAULT,
        #[cfg(feature = "zstd")]
        2 => &super::ZstdCompressor::DEFAULT,
        _ => return None,
    })
}

/// Stores values as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassthroughCompressor;

impl Compressor for PassthroughCompressor {
    fn id(&self) -> u8 {
        0
    }

    fn name(&self) -> &'static str {
        "passthrough"
    }

    fn compress(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(plain);
        Ok(())
    }

    fn decompress(&self, packed: &[u8], _: usize) -> Result<Vec<u8>> {
        Ok(packed.to_vec())
    }
}

/// Gzip, for stores that other programs read too. Default: level 6, values under 256 bytes stay plain.
#[cfg(feature = "gzip")]
#[derive(Debug, Clone, Copy)]
pub struct GzipCompressor {
    level: u32,
    min_size: usize,
}

#[cfg(feature = "gzip")]
impl Default for GzipCompressor {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(feature = "gzip")]
impl GzipCompressor {
    const DEFAULT: Self = Self { level: 6, min_size: 256 };

    /// With `level` from 1 (fast) to 9 (small); values outside are brought into that range.
    pub fn new(level: u32) -> Self {
        Self { level: level.clamp(1, 9), ..Self::default() }
    }

    /// Values shorter than `bytes` are stored plain.
    #[must_use]
    pub fn with_min_size(mut self, bytes: usize) -> Self {
        self.min_size = bytes;
        self
    }
}

#[cfg(feature = "gzip")]
impl Compressor for GzipCompressor {
    fn id(&self) -> u8 {
        1
    }

    fn name(&self) -> &'static str {
        "gzip"
    }

    fn min_size(&self) -> usize {
        self.min_size
    }

    fn level(&self) -> i32 {
        self.level.cast_signed()
    }

    fn compress(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(self.level));
        std::io::Write::write_all(&mut encoder, plain)
            .and_then(|()| encoder.finish().map(drop))
            .map_err(|e| Error::new(ErrorKind::Encode, "gzip could not compress the value").with_source(e))
    }

    fn decompress(&self, packed: &[u8], size: usize) -> Result<Vec<u8>> {
        let mut plain = Vec::new();
        self.decompress_into(packed, size, &mut plain)?;
        Ok(plain)
    }

    fn decompress_into(&self, packed: &[u8], size: usize, out: &mut Vec<u8>) -> Result<()> {
        use std::io::Read as _;
        let mut decoder = flate2::bufread::GzDecoder::new(packed);
        let start = out.len();
        out.reserve(size);
        // One byte more than stated tells a longer one; the end of the data must be seen for its checksum.
        let read = (&mut decoder).take(size as u64 + 1).read_to_end(out);
        read.map_err(|e| Error::new(ErrorKind::Decode, "the gzip data is damaged").with_source(e))?;
        if out.len() - start == size && decoder.get_ref().is_empty() {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::Decode, "the gzip data is not as long as stated"))
        }
    }
}
