//! Plain mode: only the values' own bytes are stored, for programs in other languages to read and write.

use redis::Value;

use crate::backend::BackendResult;
use crate::codec::{Encoded, Format, Header};
use crate::error::{Error, ErrorKind};
use crate::key::CacheKey;
use crate::value::{Meta, Raw, Stamp, Timestamp};

/// A frame around a value that somebody stored without one. `began`: when the read began, which is as old as the value
/// is taken to be; `None`: it has just expired.
pub(super) fn frame(
    key: &CacheKey,
    value: &Raw,
    life: &Value,
    format: &dyn Format,
    began: Timestamp,
    now: Timestamp,
) -> Option<(Raw, Stamp)> {
    let expire = match life {
        Value::Int(-1) => None,
        Value::Int(left) => Some(now.after(std::time::Duration::from_millis(u64::try_from(*left).ok()?))),
        _ => None,
    };
    let stamp = Stamp { time: began.as_millis() << 16, node: 0 };
    let meta = Meta { stamp, created: began, expire, ..Meta::default() };
    Some((Encoded::plain(Encoded::copied(value), format.id(), format.alignment()).seal(key, &meta), stamp))
}

/// The value's own bytes in a frame.
///
/// # Errors
/// [`ErrorKind::Unsupported`] if they would not read back: of another format, or compressed.
pub(super) fn value(raw: Raw, format: &dyn Format) -> BackendResult<Raw> {
    let header = Header::parse(&raw)?;
    if header.format != format.id() || header.compressor != 0 {
        let message = "a plain Redis tier stores values in its own format, uncompressed; this one is not";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(raw.slice(header.header_len..))
}
