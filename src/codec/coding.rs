//! Encoding and decoding one value, here and now: what a cache's [`Codecs`](super::Codecs) and a backend by itself
//! ([`CacheBackend`](crate::backend::CacheBackend)) have in common.

use std::any::TypeId;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::compressor::Compressor;
use super::format::Format;
use super::frame::{Encoded, Header};
use super::pool::panicked;
use super::work::{CodecWork, Work, timed};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::panic_message;

/// The largest encoded value in bytes unless the application says otherwise.
pub(crate) const MAX_VALUE: usize = 16 << 20;

/// The formats and compressors that a decoder finds by the ids in a frame.
pub(crate) trait Known {
    /// The format with `id`, preferably one that handles `ty`.
    fn format(&self, id: u8, ty: TypeId) -> Option<&dyn Format>;

    /// The compressor with `id` and `dictionary`.
    fn compressor(&self, id: u8, dictionary: u32) -> Option<&dyn Compressor>;
}

/// Encodes what `write` appends. It is stored plain where compression does not make it shorter.
///
/// # Errors
/// [`ErrorKind::TooLarge`] above `limit`; otherwise what `write` or the compressor reports.
pub(crate) fn encode(
    write: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    type_name: &str,
    format: &dyn Format,
    compressor: &dyn Compressor,
    limit: usize,
    work: Option<&CodecWork>,
) -> Result<Encoded> {
    let mut buffer = Encoded::buffer(192);
    write(&mut buffer)?;
    let plain = Encoded::appended(&buffer).ok_or_else(|| cut_into(format.name()))?;
    let size = plain.len();
    if size > limit {
        let message = format!("a `{type_name}` of {size} bytes is over the limit of {limit}");
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    if compressor.id() != 0 && size > 0 && size >= compressor.min_size() {
        let mut packed = Encoded::buffer(size);
        timed(work, Work::Compress, || compressor.compress(plain, &mut packed))?;
        let length = Encoded::appended(&packed).ok_or_else(|| cut_into(compressor.name()))?.len();
        if length < size {
            let (id, dictionary) = (compressor.id(), compressor.dictionary());
            return Ok(Encoded::packed(packed, format.id(), id, dictionary, size));
        }
    }
    Ok(Encoded::plain(buffer, format.id(), format.alignment()))
}

/// Decodes a payload: `read` gets the plain bytes and their format. Cheap checks come first; nothing is allocated by a
/// size that has not been checked.
///
/// # Errors
/// [`ErrorKind::Decode`] if the bytes are damaged, over `limit` or of an unknown format; otherwise what `read` reports.
pub(crate) fn decode<T>(
    header: &Header,
    payload: &[u8],
    ty: TypeId,
    known: &impl Known,
    limit: usize,
    work: Option<&CodecWork>,
    read: impl FnOnce(&[u8], &dyn Format) -> Result<T>,
) -> Result<T> {
    let size = header.plain_len;
    if size > limit || payload.len() > limit {
        return Err(damaged(format!("the value claims {size} bytes, over the limit of {limit}")));
    }
    let format = known.format(header.format, ty).ok_or_else(|| unknown("format", header.format))?;
    header.verify(payload)?;
    if header.compressor == 0 {
        return read(payload, format);
    }
    let compressor = known.compressor(header.compressor, header.dictionary).ok_or_else(|| {
        if header.dictionary == 0 {
            unknown("compressor", header.compressor)
        } else {
            unknown(&format!("dictionary {} of compressor", header.dictionary), header.compressor)
        }
    })?;
    let plain = timed(work, Work::Decompress, || compressor.decompress(payload, size))?;
    if plain.len() != size {
        return Err(damaged(format!("the value unpacked to {} bytes, not to {size}", plain.len())));
    }
    read(&plain, format)
}

/// Runs the code of users and formats; a panic in it is an error.
pub(crate) fn contained<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // Nothing of ours is changed within, so nothing is left half done.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&panic_message(&*panic))))
}

fn unknown(what: &str, id: u8) -> Error {
    damaged(format!("{what} {id} is not known to this build or not registered"))
}

fn cut_into(name: &str) -> Error {
    Error::new(ErrorKind::Encode, format!("`{name}` removed bytes that were not its own"))
}

fn damaged(message: String) -> Error {
    Error::new(ErrorKind::Decode, message)
}
