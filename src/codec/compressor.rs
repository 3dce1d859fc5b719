//! Compressors: how encoded bytes shrink.

use crate::error::Result;
#[cfg(feature = "zstd")]
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

/// Zstandard. Default: level 3, values under 256 bytes stay plain.
#[cfg(feature = "zstd")]
#[derive(Debug, Clone, Copy)]
pub struct ZstdCompressor {
    level: i32,
    min_size: usize,
}

#[cfg(feature = "zstd")]
impl Default for ZstdCompressor {
    fn default() -> Self {
        Self { level: 3, min_size: 256 }
    }
}

#[cfg(feature = "zstd")]
impl ZstdCompressor {
    /// With `level` from 1 (fast) to 22 (small); values outside are brought into that range.
    pub fn new(level: i32) -> Self {
        Self { level: level.clamp(1, 22), ..Self::default() }
    }

    /// Values shorter than `bytes` are stored plain.
    #[must_use]
    pub fn with_min_size(mut self, bytes: usize) -> Self {
        self.min_size = bytes;
        self
    }
}

#[cfg(feature = "zstd")]
impl Compressor for ZstdCompressor {
    fn id(&self) -> u8 {
        2
    }

    fn name(&self) -> &'static str {
        "zstd"
    }

    fn min_size(&self) -> usize {
        self.min_size
    }

    fn compress(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.resize(start + zstd::zstd_safe::compress_bound(plain.len()), 0);
        let written = zstd::bulk::compress_to_buffer(plain, &mut out[start..], self.level)
            .map_err(|e| Error::new(ErrorKind::Encode, "zstd could not compress the value").with_source(e))?;
        out.truncate(start + written);
        Ok(())
    }

    fn decompress(&self, packed: &[u8], size: usize) -> Result<Vec<u8>> {
        // Allocates what the zstd frame states, and refuses one that states more than `size`.
        let plain = zstd::bulk::decompress(packed, size)
            .map_err(|e| Error::new(ErrorKind::Decode, "the zstd data is damaged").with_source(e))?;
        if plain.len() == size {
            Ok(plain)
        } else {
            Err(Error::new(ErrorKind::Decode, "the zstd data is shorter than stated"))
        }
    }
}
