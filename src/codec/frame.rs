//! The versioned bytes of an entry: what a byte tier stores.
//!
//! A frame is a header and the payload (the encoded, perhaps compressed value), and says everything that is needed to
//! read it: a tier's format or compressor can change while old entries stay readable.
//!
//! ```text
//! magic      2   C7 54; no text begins so
//! version    1
//! flags      1   which of the parts marked ? are there
//! format     1
//! compressor 1   0: the payload is plain
//! dictionary ?   varint
//! stamp     12   time u64, node u32
//! created        zigzag varint, ms from the stamp's wall clock
//! stale      ?   zigzag varint, ms from created; likewise expire, retain
//! key        8   fingerprint
//! plain          varint, only if compressed: bytes once unpacked
//! payload        varint, bytes
//! checksum   4   of the payload
//! extensions ?   u16 total length, then each: kind u8, length varint, bytes
//! checksum   4   of the header so far
//! payload
//! ```
//!
//! Fixed integers are little-endian, checksums the low half of XXH3-64. They tell damage, not forgery: who can write
//! to the store can write values.

use bytes::Bytes;
use twox_hash::XxHash3_64;

use super::varint::{Reader, put_varint, put_zigzag};
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::value::{Meta, Raw, Stamp, Timestamp};

const MAGIC: [u8; 2] = [0xC7, b'T'];
const VERSION: u8 = 1;

const STALE: u8 = 1;
const EXPIRE: u8 = 1 << 1;
const RETAIN: u8 = 1 << 2;
const DICTIONARY: u8 = 1 << 3;
const EXTENSIONS: u8 = 1 << 4;
const KNOWN_FLAGS: u8 = STALE | EXPIRE | RETAIN | DICTIONARY | EXTENSIONS;

/// The extension that only fills up to the payload's alignment.
const PADDING: u8 = 0;

/// Free bytes before a payload that is being encoded. Longer headers (extensions, odd times) cost one copy.
const HEAD_ROOM: usize = 64;

/// Unused bytes of a frame's buffer that are never worth a move.
const SLACK: usize = 512;

/// The longest header without extensions and checksum: everything present, every varint at its longest.
const MAX_FIXED: usize = 128;

/// What stands before the payload.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Header {
    /// When the entry was written and how long it lives.
    pub meta: Meta,
    /// The [`Format`](super::Format) of the plain bytes, by id.
    pub format: u8,
    /// The [`Compressor`](super::Compressor) of the payload, by id; 0: it is plain.
    pub compressor: u8,
    /// The compressor's dictionary, by id; 0: none.
    pub dictionary: u32,
    /// Bytes of the value once unpacked, as the frame claims. Nobody has checked it yet.
    pub plain_len: usize,
    /// Bytes of the payload.
    pub payload_len: usize,
    /// The fingerprint of the key it was written under.
    pub fingerprint: u64,
    /// Bytes of the header itself, extensions and padding included.
    pub header_len: usize,
    checksum: u32,
    extensions: Raw,
}

impl Header {
    /// Reads the header of a whole frame, without looking at the payload.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`], saying what is wrong: foreign bytes, a newer version, a truncated or damaged frame.
    pub fn parse(raw: &Raw) -> Result<Self> {
        let mut reader = Reader::new(raw);
        if reader.array::<2>() != Some(MAGIC) {
            return Err(decode("these bytes were not written by Tierkeep"));
        }
        let version = reader.byte().ok_or_else(truncated)?;
        if version > VERSION {
            return Err(decode(format!(
                "the frame has version {version}, newer than the {VERSION} that this build reads"
            )));
        }
        let mut header = Self::fields(&mut reader, raw).ok_or_else(truncated)?;
        let checked = reader.position();
        let stated = reader.array().map(u32::from_le_bytes).ok_or_else(truncated)?;
        let flags = raw[3];
        if stated != checksum(&raw[..checked]) || version == 0 || flags & !KNOWN_FLAGS != 0 {
            return Err(decode("the frame's header is damaged"));
        }
        header.header_len = reader.position();
        let found = raw.len() - header.header_len;
        if found < header.payload_len {
            return Err(truncated());
        }
        if found > header.payload_len {
            let extra = found - header.payload_len;
            return Err(decode(format!("{extra} bytes are left over after the frame")));
        }
        Ok(header)
    }

    fn fields(reader: &mut Reader<'_>, raw: &Raw) -> Option<Self> {
        let [flags, format, compressor] = reader.array()?;
        let dictionary = match flags & DICTIONARY {
            0 => 0,
            _ => u32::try_from(reader.varint()?).ok()?,
        };
        let stamp = Stamp {
            time: reader.array().map(u64::from_le_bytes)?,
            node: reader.array().map(u32::from_le_bytes)?,
        };
        // Wrapping differences are lossless for any pair of times.
        let created = stamp.wall().as_millis().wrapping_add(reader.zigzag()?);
        let mut time = |flag| match flags & flag {
            0 => Some(None),
            _ => reader.zigzag().map(|delta| Some(Timestamp::from_millis(created.wrapping_add(delta)))),
        };
        let (stale, expire, retain) = (time(STALE)?, time(EXPIRE)?, time(RETAIN)?);
        let fingerprint = reader.array().map(u64::from_le_bytes)?;
        let plain_len = if compressor == 0 { None } else { Some(reader.length()?) };
        let payload_len = reader.length()?;
        let checksum = reader.array().map(u32::from_le_bytes)?;
        let mut extensions = Raw::new();
        if flags & EXTENSIONS != 0 {
            let length = reader.array().map(u16::from_le_bytes)?;
            let start = reader.position();
            reader.take(length.into())?;
            extensions = raw.slice(start..reader.position());
        }
        Some(Self {
            meta: Meta { stamp, created: Timestamp::from_millis(created), stale, expire, retain },
            format,
            compressor,
            dictionary,
            plain_len: plain_len.unwrap_or(payload_len),
            payload_len,
            fingerprint,
            header_len: 0,
            checksum,
            extensions,
        })
    }

    /// Checks the payload against its length and checksum.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if it is not the payload that was written.
    pub fn verify(&self, payload: &[u8]) -> Result<()> {
        if payload.len() == self.payload_len && checksum(payload) == self.checksum {
            Ok(())
        } else {
            Err(decode("the frame's payload is damaged"))
        }
    }

    /// The extensions in the order written: kind and bytes. Kinds that a reader does not know are to be skipped.
    pub fn extensions(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut reader = Reader::new(&self.extensions);
        std::iter::from_fn(move || {
            let kind = reader.byte()?;
            let length = reader.length()?;
            Some((kind, reader.take(length)?))
        })
        .filter(|&(kind, _)| kind != PADDING)
    }
}

/// The stamp of what looks like a frame, without checking anything: for stores that compare stamps.
#[cfg(any(feature = "redis-tokio", feature = "redis-smol"))]
pub(crate) fn peek_stamp(raw: &[u8]) -> Option<Stamp> {
    let mut reader = Reader::new(raw);
    if reader.array::<2>()? != MAGIC || reader.byte()? != VERSION {
        return None;
    }
    let [flags, _format, _compressor] = reader.array()?;
    if flags & DICTIONARY != 0 {
        reader.varint()?;
    }
    let time = reader.array().map(u64::from_le_bytes)?;
    Some(Stamp { time, node: reader.array().map(u32::from_le_bytes)? })
}

/// Opens the frame that a store returned for `key`. The payload is a slice of `raw`, not a copy, and still unchecked:
/// [`Header::verify`] does that when it is decoded.
///
/// # Errors
/// [`ErrorKind::Decode`], saying what is wrong: as [`Header::parse`], or written under another key.
pub fn open(raw: &Raw, key: &CacheKey) -> Result<(Header, Raw)> {
    let header = Header::parse(raw)?;
    if header.fingerprint != key.fingerprint() {
        return Err(decode("the frame was written under another key"));
    }
    let payload = raw.slice(header.header_len..);
    Ok((header, payload))
}

/// The same frame with another stamp. Copies the payload.
///
/// # Errors
/// As [`Header::parse`].
pub(crate) fn restamp(raw: &Raw, stamp: Stamp) -> Result<Raw> {
    let header = Header::parse(raw)?;
    let buffer = Encoded::copied(&raw[header.header_len..]);
    let mut extensions = Vec::new();
    for (kind, bytes) in header.extensions() {
        extensions.push(kind);
        put_varint(&mut extensions, bytes.len() as u64);
        extensions.extend_from_slice(bytes);
    }
    let encoded = Encoded {
        buffer,
        format: header.format,
        compressor: header.compressor,
        dictionary: header.dictionary,
        plain_len: header.plain_len,
        // The widest: how it was aligned does not stand in it.
        alignment: if header.compressor == 0 { 64 } else { 1 },
        checksum: header.checksum,
        extensions,
    };
    Ok(encoded.seal_for(header.fingerprint, &Meta { stamp, ..header.meta }))
}

/// An encoded value on its way into a frame, with room before it for the header: [`seal`](Self::seal) does not move
/// the payload.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Head-room, then the payload.
    buffer: Vec<u8>,
    format: u8,
    compressor: u8,
    dictionary: u32,
    plain_len: usize,
    alignment: usize,
    checksum: u32,
    extensions: Vec<u8>,
}

impl Encoded {
    /// `buffer`, emptied, with the head-room and space for `capacity` bytes of payload at least.
    pub(crate) fn buffer_in(mut buffer: Vec<u8>, capacity: usize) -> Vec<u8> {
        buffer.clear();
        buffer.reserve_exact(HEAD_ROOM + capacity);
        buffer.resize(HEAD_ROOM, 0);
        buffer
    }

    /// A buffer of exactly this payload.
    pub(crate) fn copied(payload: &[u8]) -> Vec<u8> {
        let mut buffer = Self::buffer_in(Vec::new(), payload.len());
        buffer.extend_from_slice(payload);
        buffer
    }

    /// What has been appended to a [`buffer_in`](Self::buffer_in); `None` if that was cut into.
    pub(super) fn appended(buffer: &[u8]) -> Option<&[u8]> {
        buffer.get(HEAD_ROOM..)
    }

    /// A plain payload that was appended to a [`buffer_in`](Self::buffer_in).
    pub(crate) fn plain(mut buffer: Vec<u8>, format: u8, alignment: usize) -> Self {
        // A store keeps what is not used too. Little of it is not worth a move.
        if buffer.capacity() - buffer.len() > SLACK.max(buffer.len() / 8) {
            buffer.shrink_to_fit();
        }
        let payload = &buffer[HEAD_ROOM..];
        let (plain_len, checksum) = (payload.len(), checksum(payload));
        let alignment = alignment.clamp(1, 64);
        let extensions = Vec::new();
        Self { buffer, format, compressor: 0, dictionary: 0, plain_len, alignment, checksum, extensions }
    }

    /// A compressed payload that was appended to a [`buffer_in`](Self::buffer_in). It needs no alignment.
    pub(super) fn packed(
        buffer: Vec<u8>,
        format: u8,
        compressor: u8,
        dictionary: u32,
        plain_len: usize,
    ) -> Self {
        Self { compressor, dictionary, plain_len, ..Self::plain(buffer, format, 1) }
    }

    /// Bytes of the engine's own, of no format.
    #[cfg(feature = "zstd")]
    pub(crate) fn raw(bytes: &[u8]) -> Self {
        Self::plain(Self::copied(bytes), 0, 1)
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.buffer[HEAD_ROOM..]
    }

    /// Bytes of the value before compression.
    pub fn plain_len(&self) -> usize {
        self.plain_len
    }

    /// Whether the payload is compressed.
    pub fn is_compressed(&self) -> bool {
        self.compressor != 0
    }

    /// Adds an extension: kinds 1-127 are the engine's, 128-255 the application's.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if all extensions together pass 60,000 bytes; [`ErrorKind::Config`] for kind 0.
    pub fn with_extension(mut self, kind: u8, bytes: &[u8]) -> Result<Self> {
        if kind == PADDING {
            return Err(Error::new(ErrorKind::Config, "frame extension 0 is the engine's padding"));
        }
        if self.extensions.len() + bytes.len() > 60_000 {
            return Err(Error::new(ErrorKind::TooLarge, "a frame's extensions may take 60,000 bytes"));
        }
        self.extensions.push(kind);
        put_varint(&mut self.extensions, bytes.len() as u64);
        self.extensions.extend_from_slice(bytes);
        Ok(self)
    }

    /// The whole frame. The payload is not copied, unless the header is longer than its room.
    pub fn seal(self, key: &CacheKey, meta: &Meta) -> Raw {
        self.seal_for(key.fingerprint(), meta)
    }

    fn seal_for(mut self, fingerprint: u64, meta: &Meta) -> Raw {
        let mut fixed = Fixed::default();
        self.put_fields(&mut fixed, fingerprint, meta);
        let fixed = fixed.as_slice();
        self.put_section(fixed.len());

        let total = fixed.len() + self.extensions.len() + 4;
        let room = if total <= HEAD_ROOM {
            HEAD_ROOM
        } else {
            let mut wider = vec![0; total];
            wider.extend_from_slice(&self.buffer[HEAD_ROOM..]);
            self.buffer = wider;
            total
        };
        let head = &mut self.buffer[room - total..room];
        let (body, sum) = head.split_at_mut(total - 4);
        body[..fixed.len()].copy_from_slice(fixed);
        body[fixed.len()..].copy_from_slice(&self.extensions);
        sum.copy_from_slice(&checksum(body).to_le_bytes());
        Bytes::from(self.buffer).slice(room - total..)
    }

    fn put_fields(&self, out: &mut Fixed, fingerprint: u64, meta: &Meta) {
        let optional = [(STALE, meta.stale), (EXPIRE, meta.expire), (RETAIN, meta.retain)];
        let mut flags = if self.dictionary == 0 { 0 } else { DICTIONARY };
        for (flag, time) in optional {
            flags |= if time.is_some() { flag } else { 0 };
        }
        if self.alignment > 1 || !self.extensions.is_empty() {
            flags |= EXTENSIONS;
        }
        out.extend(MAGIC);
        out.extend([VERSION, flags, self.format, self.compressor]);
        if self.dictionary != 0 {
            put_varint(out, self.dictionary.into());
        }
        out.extend(meta.stamp.time.to_le_bytes());
        out.extend(meta.stamp.node.to_le_bytes());
        let created = meta.created.as_millis();
        put_zigzag(out, created.wrapping_sub(meta.stamp.wall().as_millis()));
        for time in optional.into_iter().filter_map(|(_, time)| time) {
            put_zigzag(out, time.as_millis().wrapping_sub(created));
        }
        out.extend(fingerprint.to_le_bytes());
        if self.compressor != 0 {
            put_varint(out, self.plain_len as u64);
        }
        put_varint(out, (self.buffer.len() - HEAD_ROOM) as u64);
        out.extend(self.checksum.to_le_bytes());
    }

    /// Turns the extensions into the section that follows `fixed` bytes, padded so that the payload is aligned.
    fn put_section(&mut self, fixed: usize) {
        if self.alignment == 1 && self.extensions.is_empty() {
            return;
        }
        let end = fixed + 2 + self.extensions.len() + 4;
        let mut padding = end.next_multiple_of(self.alignment) - end;
        if padding == 1 {
            padding += self.alignment; // an extension takes at least two bytes
        }
        if padding > 0 {
            self.extensions.push(PADDING);
            put_varint(&mut self.extensions, (padding - 2) as u64);
            self.extensions.resize(self.extensions.len() + padding - 2, 0);
        }
        // `with_extension` keeps the sum well below 64 KiB.
        let length = u16::try_from(self.extensions.len()).unwrap_or(u16::MAX);
        self.extensions.splice(0..0, length.to_le_bytes());
    }
}

/// The fixed part of a header while it is written: on the stack.
struct Fixed {
    bytes: [u8; MAX_FIXED],
    len: usize,
}

impl Default for Fixed {
    fn default() -> Self {
        Self { bytes: [0; MAX_FIXED], len: 0 }
    }
}

impl Fixed {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Extend<u8> for Fixed {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        for byte in bytes {
            self.bytes[self.len] = byte;
            self.len += 1;
        }
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the checksum")]
    let low = XxHash3_64::oneshot(bytes) as u32;
    low
}

fn truncated() -> Error {
    decode("the frame is truncated")
}

fn decode(message: impl Into<std::sync::Arc<str>>) -> Error {
    Error::new(ErrorKind::Decode, message)
}
