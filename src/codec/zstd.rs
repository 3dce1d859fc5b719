//! Zstandard: its compressor, and the contexts that it works with.

use std::io::Cursor;
use std::sync::{Mutex, TryLockError};

use ::zstd::zstd_safe::{
    CCtx, CParameter, DCtx, ErrorCode, compress_bound, get_error_name, get_frame_content_size,
};

use super::compressor::Compressor;
use crate::error::{Error, ErrorKind, Result};

/// Contexts that are kept per use (compressing without a dictionary, unpacking, and each dictionary), and the largest
/// that is: the high levels' take more than it is worth to keep.
const CONTEXTS: usize = 4;
const LARGEST_CONTEXT: usize = 8 << 20;

/// Zstandard. Default: level 3, values under 256 bytes stay plain.
#[derive(Debug, Clone, Copy)]
pub struct ZstdCompressor {
    level: i32,
    min_size: usize,
}

impl Default for ZstdCompressor {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl ZstdCompressor {
    pub(super) const DEFAULT: Self = Self { level: 3, min_size: 256 };

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

    fn level(&self) -> i32 {
        self.level
    }

    fn compress(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut context =
            COMPRESSING.take(CCtx::try_create).ok_or_else(|| failed("no memory for its context"))?;
        let level = context.set_parameter(CParameter::CompressionLevel(self.level));
        level.map_err(|code| failed(get_error_name(code)))?;
        compress(&mut context, plain, out)?;
        let size = context.sizeof();
        COMPRESSING.give(context, size);
        Ok(())
    }

    fn decompress(&self, packed: &[u8], size: usize) -> Result<Vec<u8>> {
        let mut plain = Vec::new();
        self.decompress_into(packed, size, &mut plain)?;
        Ok(plain)
    }

    fn decompress_into(&self, packed: &[u8], size: usize, out: &mut Vec<u8>) -> Result<()> {
        unpack(packed, size, out, |context, out| context.decompress(out, packed))
    }
}

static COMPRESSING: Contexts<CCtx<'static>> = Contexts::new();
static UNPACKING: Contexts<DCtx<'static>> = Contexts::new();

/// Contexts for use again: making one costs more than compressing a small value.
struct Contexts<C>(Mutex<Vec<C>>);

impl<C> Contexts<C> {
    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn take(&self, make: impl FnOnce() -> Option<C>) -> Option<C> {
        self.with(Vec::pop).flatten().or_else(make)
    }

    /// Keeps a context of `size` bytes, if there is room for it.
    fn give(&self, context: C, size: usize) {
        let mut context = (size <= LARGEST_CONTEXT).then_some(context);
        self.with(|kept| {
            if kept.len() < CONTEXTS {
                kept.extend(context.take());
            }
        });
    }

    fn with<T>(&self, f: impl FnOnce(&mut Vec<C>) -> T) -> Option<T> {
        match self.0.try_lock() {
            Ok(mut kept) => Some(f(&mut kept)),
            Err(TryLockError::Poisoned(poisoned)) => Some(f(&mut poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// Appends `plain`, compressed as the context is set up. A context that fails is not to be used again.
pub(super) fn compress(context: &mut CCtx<'_>, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    out.reserve(compress_bound(plain.len()));
    let mut spare = Cursor::new(std::mem::take(out));
    spare.set_position(start as u64);
    let written = context.compress2(&mut spare, plain);
    *out = spare.into_inner();
    written.map_err(|code| failed(get_error_name(code)))?;
    Ok(())
}

/// Appends exactly `size` bytes that `run` unpacks from `packed`. Nothing beyond them is allocated, whatever the data
/// state.
pub(super) fn unpack(
    packed: &[u8],
    size: usize,
    out: &mut Vec<u8>,
    run: impl FnOnce(&mut DCtx<'static>, &mut Cursor<Vec<u8>>) -> Result<usize, ErrorCode>,
) -> Result<()> {
    if let Ok(Some(stated)) = get_frame_content_size(packed)
        && stated != size as u64
    {
        return Err(damaged(&format!("it states {stated} bytes, not {size}")));
    }
    let mut context = UNPACKING.take(DCtx::try_create).ok_or_else(|| damaged("no memory for its context"))?;
    let start = out.len();
    out.reserve_exact(size);
    let mut spare = Cursor::new(std::mem::take(out));
    spare.set_position(start as u64);
    let written = run(&mut context, &mut spare);
    *out = spare.into_inner();
    // One-shot decompression keeps nothing of a frame, damaged or not.
    let kept = context.sizeof();
    UNPACKING.give(context, kept);
    // The buffer may have had more room than the value may take.
    match written {
        Ok(written) if written == size => Ok(()),
        Ok(written) => Err(damaged(&format!("it unpacks to {written} bytes, not to {size}"))),
        Err(code) => Err(damaged(get_error_name(code))),
    }
}

pub(super) fn failed(why: &str) -> Error {
    Error::new(ErrorKind::Encode, format!("zstd could not compress the value: {why}"))
}

fn damaged(why: &str) -> Error {
    Error::new(ErrorKind::Decode, format!("the zstd data is damaged: {why}"))
}
