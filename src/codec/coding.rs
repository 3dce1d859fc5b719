//! Encoding and decoding one value, here and now: what a cache's [`Codecs`](super::Codecs) and a backend by itself
//! ([`CacheBackend`](crate::backend::CacheBackend)) have in common.

use std::any::TypeId;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::compressor::Compressor;
use super::format::Format;
use super::frame::{Encoded, Header};
use super::pool::panicked;
use super::scratch::Scratch;
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
    fn compressor(&self, id: u8, dictionary: u32) -> Option<AnyCompressor<'_>>;
}

/// A compressor that was registered, or one made for a dictionary that may be forgotten meanwhile.
pub(crate) enum AnyCompressor<'a> {
    Known(&'a dyn Compressor),
    #[cfg(feature = "zstd")]
    Made(super::ZstdDictionaryCompressor),
}

impl Deref for AnyCompressor<'_> {
    type Target = dyn Compressor;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Known(known) => *known,
            #[cfg(feature = "zstd")]
            Self::Made(made) => made,
        }
    }
}

/// What encoding and decoding work with.
#[derive(Clone, Copy)]
pub(crate) struct Tools<'a> {
    /// The largest encoded value in bytes.
    pub(crate) max_value: usize,
    pub(crate) work: Option<&'a CodecWork>,
    pub(crate) scratch: &'a Scratch,
}

/// Encodes what `write` appends. It is stored plain where compression does not make it shorter.
///
/// # Errors
/// [`ErrorKind::TooLarge`] above the limit; otherwise what `write` or the compressor reports.
pub(crate) fn encode(
    write: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    type_name: &str,
    format: &dyn Format,
    compressor: &dyn Compressor,
    tools: Tools<'_>,
) -> Result<Encoded> {
    let packs = compressor.id() != 0;
    // What is compressed does not keep its plain form: that passes through a buffer used again.
    let mut buffer = Encoded::buffer_in(if packs { tools.scratch.take() } else { Vec::new() }, 192);
    write(&mut buffer)?;
    let plain = Encoded::appended(&buffer).ok_or_else(|| cut_into(format.name()))?;
    let size = plain.len();
    if size > tools.max_value {
        let message = format!("a `{type_name}` of {size} bytes is over the limit of {}", tools.max_value);
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    if !packs {
        return Ok(Encoded::plain(buffer, format.id(), format.alignment()));
    }
    if size > 0 && size >= compressor.min_size() {
        // The compressor asks for room for the worst case; what is stored takes what it needs.
        let mut out = tools.scratch.take();
        timed(tools.work, Work::Compress, || compressor.compress(plain, &mut out))?;
        if out.is_empty() {
            return Err(cut_into(compressor.name()));
        }
        if out.len() < size {
            let (id, dictionary) = (compressor.id(), compressor.dictionary());
            let encoded = Encoded::packed(Encoded::copied(&out), format.id(), id, dictionary, size);
            tools.scratch.give(out);
            tools.scratch.give(buffer);
            return Ok(encoded);
        }
        tools.scratch.give(out);
    }
    let encoded = Encoded::plain(Encoded::copied(plain), format.id(), format.alignment());
    tools.scratch.give(buffer);
    Ok(encoded)
}

/// Decodes a payload: `read` gets the plain bytes and their format. Cheap checks come first; nothing is allocated by a
/// size that has not been checked.
///
/// # Errors
/// [`ErrorKind::Decode`] if the bytes are damaged, over the limit or of an unknown format; otherwise what `read`
/// reports.
pub(crate) fn decode<T>(
    header: &Header,
    payload: &[u8],
    ty: TypeId,
    known: &impl Known,
    tools: Tools<'_>,
    read: impl FnOnce(&[u8], &dyn Format) -> Result<T>,
) -> Result<T> {
    check_size(header, payload, tools.max_value)?;
    let format = known.format(header.format, ty).ok_or_else(|| unknown("format", header.format))?;
    header.verify(payload)?;
    if header.compressor == 0 {
        return read(payload, format);
    }
    let mut plain = tools.scratch.take();
    unpack(header, payload, known, tools.work, &mut plain)?;
    let result = read(&plain, format);
    tools.scratch.give(plain);
    result
}

/// Whether a payload is within the limit, by its own length and by what its header claims.
///
/// # Errors
/// [`ErrorKind::Decode`] if it is not.
pub(super) fn check_size(header: &Header, payload: &[u8], limit: usize) -> Result<()> {
    let size = header.plain_len;
    if size > limit || payload.len() > limit {
        return Err(damaged(format!("the value claims {size} bytes, over the limit of {limit}")));
    }
    Ok(())
}

/// Appends the plain form of a compressed payload whose size and checksum were checked.
///
/// # Errors
/// [`ErrorKind::Decode`] if it is damaged, or its compressor is not known.
pub(super) fn unpack(
    header: &Header,
    payload: &[u8],
    known: &impl Known,
    work: Option<&CodecWork>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let compressor = known.compressor(header.compressor, header.dictionary).ok_or_else(|| {
        if header.dictionary == 0 {
            unknown("compressor", header.compressor)
        } else {
            unknown(&format!("dictionary {} of compressor", header.dictionary), header.compressor)
        }
    })?;
    let (start, size) = (out.len(), header.plain_len);
    timed(work, Work::Decompress, || compressor.decompress_into(payload, size, out))?;
    match out.len().checked_sub(start) {
        Some(length) if length == size => Ok(()),
        length => {
            let length = length.unwrap_or(0);
            Err(damaged(format!("the value unpacked to {length} bytes, not to {size}")))
        }
    }
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
