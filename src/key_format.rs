//! How a key becomes the bytes that a store files an entry under.

use crate::codec::{Reader, put_varint};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{CacheKey, KeyPart};

/// How a backend writes keys. See [`Backend::key_format`](crate::Backend::key_format).
///
/// Both formats read back every key there is, whatever text its parts hold, and give different keys different bytes.
///
/// ```
/// use tierkeep::{CacheKey, CacheKeyFormat, KeyPart};
///
/// let key = CacheKey::new("user", 1, [KeyPart::new("id", Some("1790000000000")), KeyPart::flag("ü")]);
/// assert_eq!(CacheKeyFormat::UrlEncoded.serialize(&key), b"user:v1:id=1790000000000&%C3%BC");
/// assert_eq!(CacheKeyFormat::Compact.serialize(&key).len(), 19);
/// for format in [CacheKeyFormat::UrlEncoded, CacheKeyFormat::Compact] {
///     assert_eq!(format.deserialize(&format.serialize(&key))?, key);
/// }
/// # Ok::<(), tierkeep::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CacheKeyFormat {
    /// The key's own text, `prefix:v1:id=7&full`, percent-encoded: readable in the store, and what clears by prefix
    /// need. The default, and what the engine's own disk tier uses.
    #[default]
    UrlEncoded,
    /// Binary: integers take as many bytes as they need, hexadecimal text half its length, other text its own and one.
    /// Not readable, and keys of one region share no plain prefix.
    Compact,
}

impl CacheKeyFormat {
    /// The key's bytes.
    pub fn serialize(&self, key: &CacheKey) -> Vec<u8> {
        match self {
            Self::UrlEncoded => key.as_str().as_bytes().to_vec(),
            Self::Compact => compact(key),
        }
    }

    /// The key that `bytes` were made of.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if they are not what [`serialize`](Self::serialize) makes of some key.
    pub fn deserialize(&self, bytes: &[u8]) -> Result<CacheKey> {
        let key = match self {
            Self::UrlEncoded => std::str::from_utf8(bytes).ok().and_then(CacheKey::parse),
            // Written again and compared: a key has one encoding only.
            Self::Compact => read_key(bytes).filter(|key| compact(key) == bytes),
        };
        key.ok_or_else(|| Error::new(ErrorKind::Decode, "the bytes are not a key in this format"))
    }
}

const TEXT: u64 = 0;
const INTEGER: u64 = 1;
const HEX: u64 = 2;

/// Prefix, version, then each part: its name with a bit that says whether a value follows, and the value.
fn compact(key: &CacheKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.as_str().len());
    piece(&mut out, &key.decoded_prefix(), false);
    put_varint(&mut out, key.version().into());
    for part in key.parts() {
        piece(&mut out, part.name(), part.value().is_some());
        if let Some(value) = part.value() {
            piece(&mut out, value, false);
        }
    }
    out
}

/// One text: `more | form << 1 | length << 3`, then its bytes; of an integer only the form, then the number.
fn piece(out: &mut Vec<u8>, text: &str, more: bool) {
    let head = |form: u64, length: usize| u64::from(more) | form << 1 | (length as u64) << 3;
    if let Some(number) = integer(text) {
        put_varint(out, head(INTEGER, 0));
        put_varint(out, number);
    } else if is_hex(text) {
        put_varint(out, head(HEX, text.len() / 2));
        let digit = |byte: u8| if byte.is_ascii_digit() { byte - b'0' } else { byte - b'a' + 10 };
        out.extend(text.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])));
    } else {
        put_varint(out, head(TEXT, text.len()));
        out.extend_from_slice(text.as_bytes());
    }
}

/// The number whose decimal text this is: no sign, no leading zeros.
fn integer(text: &str) -> Option<u64> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

/// Whether halving it loses nothing and is worth the while.
fn is_hex(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() >= 4 && text.len().is_multiple_of(2) && text.bytes().all(hex)
}

fn read_key(bytes: &[u8]) -> Option<CacheKey> {
    let mut reader = Reader::new(bytes);
    let (prefix, false) = read_piece(&mut reader)? else { return None };
    let version = u32::try_from(reader.varint()?).ok()?;
    let mut parts = Vec::new();
    while !reader.is_at_end() {
        let (name, more) = read_piece(&mut reader)?;
        let value = if more { Some(read_piece(&mut reader)?.0) } else { None };
        parts.push(KeyPart::new(name, value));
    }
    Some(CacheKey::new(&prefix, version, parts))
}

fn read_piece(reader: &mut Reader<'_>) -> Option<(String, bool)> {
    let head = reader.varint()?;
    let (more, form, length) = (head & 1 == 1, head >> 1 & 3, usize::try_from(head >> 3).ok()?);
    let text = match form {
        INTEGER => reader.varint()?.to_string(),
        TEXT => String::from_utf8(reader.take(length)?.to_vec()).ok()?,
        HEX => reader.take(length)?.iter().map(|byte| format!("{byte:02x}")).collect(),
        _ => return None,
    };
    Some((text, more))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::{KeyParts, KeyWriter};

    const FORMATS: [CacheKeyFormat; 2] = [CacheKeyFormat::UrlEncoded, CacheKeyFormat::Compact];

    /// Texts of every kind that the formats treat in their own way, and any other.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            any::<u64>().prop_map(|n| n.to_string()),
            "0[0-9]{0,22}",
            "[0-9]{18,24}",
            "[0-9a-f]{0,20}",
            "[0-9A-F]{4}",
            Just(String::new()),
            Just(":".to_owned()),
        ]
    }

    fn any_key() -> impl Strategy<Value = CacheKey> {
        let part = (text(), proptest::option::of(text()));
        (text(), any::<u32>(), proptest::collection::vec(part, 0..5)).prop_map(|(prefix, version, parts)| {
            CacheKey::new(&prefix, version, parts.into_iter().map(|(name, value)| KeyPart::new(name, value)))
        })
    }

    /// Keys as regions make them: from typed parts.
    fn region_key(parts: &impl KeyParts) -> CacheKey {
        let mut text = String::new();
        parts.write(&mut KeyWriter::begin(&mut text, "r", 1));
        CacheKey::from_canonical(text)
    }

    proptest! {
        #[test]
        fn every_key_reads_back(key in any_key()) {
            for format in FORMATS {
                prop_assert_eq!(&format.deserialize(&format.serialize(&key)).unwrap(), &key, "{:?}", format);
            }
        }

        #[test]
        fn different_keys_have_different_bytes(a in any_key(), b in any_key()) {
            for format in FORMATS {
                prop_assert_eq!(format.serialize(&a) == format.serialize(&b), a == b, "{:?}", format);
            }
        }

        #[test]
        fn every_typed_key_reads_back(
            bytes in proptest::collection::vec(any::<u8>(), 0..40), number: i128, letter: char, name: String,
        ) {
            let key = region_key(&((&bytes[..], number, letter), name));
            for format in FORMATS {
                prop_assert_eq!(&format.deserialize(&format.serialize(&key)).unwrap(), &key, "{:?}", format);
            }
        }

        #[test]
        fn hostile_bytes_are_an_error_or_the_one_encoding_of_a_key(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            for format in FORMATS {
                if let Ok(key) = format.deserialize(&bytes) {
                    prop_assert_eq!(format.serialize(&key), &bytes[..], "{:?}", format);
                }
            }
        }
    }

    #[test]
    fn no_prefix_of_a_key_is_taken_for_it() {
        let key = CacheKey::new("user", 7, [KeyPart::new("id", Some("1234567")), KeyPart::flag("full")]);
        for format in FORMATS {
            let bytes = format.serialize(&key);
            for end in 0..bytes.len() {
                assert!(
                    format.deserialize(&bytes[..end]).ok() != Some(key.clone()),
                    "{format:?} cut at {end}"
                );
            }
        }
    }

    #[test]
    fn an_integer_part_that_prints_as_something_else_is_still_a_key_that_reads_back() {
        struct Odd(&'static str);
        impl KeyParts for Odd {
            fn write(&self, key: &mut KeyWriter<'_>) {
                key.integer(self.0);
            }
        }
        for odd in ["a:b&c=%", "", "%zz"] {
            let key = region_key(&Odd(odd));
            assert_eq!(key.parts().map(|part| part.name().to_owned()).collect::<Vec<_>>(), [odd]);
            for format in FORMATS {
                assert_eq!(format.deserialize(&format.serialize(&key)).unwrap(), key);
            }
        }
    }

    #[test]
    fn compact_keys_are_shorter() {
        let key = region_key(&([0xAB_u8; 16].as_slice(), 1_790_000_000_000_u64));
        let (text, compact) = FORMATS.map(|format| format.serialize(&key).len()).into();
        assert_eq!((text, compact), (51, 28));
    }
}
