//! Keys: what an entry is called in every tier.
//!
//! A key is one canonical text, `prefix:v1:id=7&lang=en`. It is what memory tiers compare, what byte tiers store
//! under, and what an operator reads in a log. Bytes outside `A-Z a-z 0-9 - . _ ~` are percent-encoded, so any
//! Unicode or control character is a legal part and no two different keys share a text.

mod parts;

pub use parts::KeyParts;

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::OnceLock;

use triomphe::Arc;

/// The name of an entry: a prefix (its region), a schema version and parts.
///
/// Cloning bumps a reference count. The hash is computed once, when the key is built.
///
/// ```
/// use tierkeep::{CacheKey, KeyPart};
///
/// let key = CacheKey::new("user", 1, [KeyPart::new("id", Some("7")), KeyPart::flag("full")]);
/// assert_eq!(key.to_string(), "user:v1:id=7&full");
/// assert_eq!(key.prefix(), "user");
/// assert_eq!(key.parts().count(), 2);
/// assert_eq!(CacheKey::parse("user:v1:id=7&full"), Some(key));
/// ```
#[derive(Clone)]
pub struct CacheKey {
    hash: u64,
    text: Arc<str>,
}

/// One `name` or `name=value` of a [`CacheKey`], decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPart<'a> {
    name: Cow<'a, str>,
    value: Option<Cow<'a, str>>,
}

impl<'a> KeyPart<'a> {
    /// A part with an optional value; `None` and `Some("")` are different parts.
    pub fn new(name: impl Into<Cow<'a, str>>, value: Option<impl Into<Cow<'a, str>>>) -> Self {
        Self { name: name.into(), value: value.map(Into::into) }
    }

    /// A part without a value.
    pub fn flag(name: impl Into<Cow<'a, str>>) -> Self {
        Self { name: name.into(), value: None }
    }

    /// The part's name, decoded.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The part's value, decoded; `None` for a flag.
    pub fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }
}

impl CacheKey {
    /// The longest text of a key, in bytes (64 KiB). Longer ones are not stored: a mutation of such a key is refused
    /// with [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge), a read of it misses.
    pub const MAX_LEN: usize = 64 << 10;

    /// Whether the text is longer than [`MAX_LEN`](Self::MAX_LEN).
    pub fn is_too_long(&self) -> bool {
        self.text.len() > Self::MAX_LEN
    }

    /// Builds a key from its prefix, the version of its value's schema, and its parts in order.
    pub fn new<'a>(prefix: &str, version: u32, parts: impl IntoIterator<Item = KeyPart<'a>>) -> Self {
        let mut text = String::with_capacity(prefix.len() + 32);
        let mut writer = KeyWriter::begin(&mut text, prefix, version);
        for part in parts {
            match part.value {
                Some(value) => writer.pair(&part.name, &value),
                None => writer.flag(&part.name),
            }
        }
        Self::from_canonical(text)
    }

    /// Reads a key's text back; `None` if the text is not one that a key prints.
    pub fn parse(text: &str) -> Option<Self> {
        let (prefix, rest) = text.split_once(':')?;
        let (version, parts) = rest.strip_prefix('v')?.split_once(':')?;
        let version = version.parse().ok()?;
        let parts: Option<Vec<_>> = split_parts(parts).map(parse_part).collect();
        // Rebuilding and comparing rejects every text that is not the canonical one (`%41`, `v01`, …).
        let key = Self::new(&decode(prefix)?, version, parts?);
        (*key.text == *text).then_some(key)
    }

    pub(crate) fn from_canonical(text: impl AsRef<str>) -> Self {
        let text = Arc::from(text.as_ref());
        Self { hash: hash_text(&text), text }
    }

    /// The canonical text, percent-encoded: what byte tiers store the entry under.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The prefix as it stands in the text (percent-encoded if it needed to be).
    pub fn prefix(&self) -> &str {
        // Looked for, not remembered: few ask, and every entry in memory holds a key.
        self.text.split(':').next().unwrap_or_default()
    }

    /// The prefix, decoded.
    pub(crate) fn decoded_prefix(&self) -> Cow<'_, str> {
        // What a key prints as its prefix always decodes.
        decode(self.prefix()).unwrap_or_default()
    }

    /// The schema version.
    pub fn version(&self) -> u32 {
        let version = self.text.split(':').nth(1).and_then(|version| version.strip_prefix('v'));
        version.and_then(|version| version.parse().ok()).unwrap_or(0)
    }

    /// The parts, decoded, in order.
    pub fn parts(&self) -> impl Iterator<Item = KeyPart<'_>> {
        let parts = self.text.splitn(3, ':').nth(2).unwrap_or_default();
        split_parts(parts).filter_map(parse_part)
    }

    /// The in-memory hash: stable within a process, not across processes (it is seeded).
    pub fn hash_u64(&self) -> u64 {
        self.hash
    }

    /// A hash of the text that is the same in every process: stored in frames to tell a foreign entry.
    pub(crate) fn fingerprint(&self) -> u64 {
        twox_hash::XxHash3_64::oneshot(self.text.as_bytes())
    }

    /// This key, borrowed, for a look-up.
    pub fn probe(&self) -> KeyProbe<'_> {
        KeyProbe { hash: self.hash, text: &self.text }
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({})", self.text)
    }
}

impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}

impl Eq for CacheKey {}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialOrd for CacheKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for CacheKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

/// A key for a look-up, borrowed from wherever its text lies: it hashes and compares as the [`CacheKey`] would.
#[derive(Debug, Clone, Copy)]
pub struct KeyProbe<'a> {
    hash: u64,
    text: &'a str,
}

impl<'a> KeyProbe<'a> {
    /// Takes a canonical text, as [`KeyWriter`] makes it.
    pub(crate) fn from_canonical(text: &'a str) -> Self {
        Self { hash: hash_text(text), text }
    }

    /// The owned key.
    pub fn to_key(&self) -> CacheKey {
        CacheKey { hash: self.hash, text: self.text.into() }
    }

    /// The canonical text.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// The in-memory hash, equal to [`CacheKey::hash_u64`] of the same key.
    pub fn hash_u64(&self) -> u64 {
        self.hash
    }

    /// The prefix as it stands in the text.
    pub fn prefix(&self) -> &'a str {
        self.text.split(':').next().unwrap_or_default()
    }
}

impl serde::Serialize for CacheKey {
    /// As its text.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Hash for KeyProbe<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl quick_cache::Equivalent<CacheKey> for KeyProbe<'_> {
    fn equivalent(&self, key: &CacheKey) -> bool {
        self.hash == key.hash && *self.text == *key.text
    }
}

/// A [`BuildHasher`] for maps keyed by [`CacheKey`]: the key's own hash is already mixed, so it is passed through.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyHash;

/// The hasher of [`KeyHash`].
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyHasher(u64);

impl BuildHasher for KeyHash {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher(0)
    }
}

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = twox_hash::XxHash3_64::oneshot_with_seed(self.0, bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Writes a typed key's parts into a key's text. See [`KeyParts`].
#[derive(Debug)]
pub struct KeyWriter<'a> {
    out: &'a mut String,
    parts: usize,
}

impl<'a> KeyWriter<'a> {
    pub(crate) fn begin(out: &'a mut String, prefix: &str, version: u32) -> Self {
        encode(prefix, out);
        // Writing into a String cannot fail.
        let _ = write!(out, ":v{version}:");
        Self { out, parts: 0 }
    }

    /// Continues after an already written `prefix:vN:`.
    pub(crate) fn resume(out: &'a mut String) -> Self {
        Self { out, parts: 0 }
    }

    /// Adds `name=value`.
    pub fn pair(&mut self, name: &str, value: &str) {
        self.flag(name);
        self.out.push('=');
        encode(value, self.out);
    }

    /// Adds `name`.
    pub fn flag(&mut self, name: &str) {
        self.separate();
        // `:` alone stands for an empty name, so that "no parts" and "one empty part" differ.
        if name.is_empty() {
            self.out.push(':');
        } else {
            encode(name, self.out);
        }
    }

    /// Adds a value without a name, as integers, strings and tuples do.
    pub fn value(&mut self, value: &str) {
        self.flag(value);
    }

    /// Adds an integer without a name. Does not allocate once the text has room.
    pub fn integer(&mut self, value: impl fmt::Display) {
        self.separate();
        let start = self.out.len();
        // Encoded like any other text: nothing says that it prints as an integer.
        let _ = write!(Encoding(self.out), "{value}");
        if self.out.len() == start {
            self.out.push(':');
        }
    }

    /// As [`integer`](Self::integer), of one whose digits need no encoding and no formatter.
    #[inline]
    pub(crate) fn digits(&mut self, value: impl itoa::Integer) {
        self.separate();
        self.out.push_str(itoa::Buffer::new().format(value));
    }

    fn separate(&mut self) {
        if self.parts > 0 {
            self.out.push('&');
        }
        self.parts += 1;
    }
}

/// The process's hash seed: drawn once, so that nobody outside can prepare colliding keys.
static SEED: OnceLock<u64> = OnceLock::new();

/// Fixes the seed, for runs that must repeat exactly; no effect once a key has been hashed.
#[cfg(feature = "testing")]
pub fn deterministic_hashing() {
    SEED.get_or_init(|| 0);
}

fn hash_text(text: &str) -> u64 {
    // Not engine randomness: it decides no behaviour, only which shard a key falls in.
    let seed = *SEED.get_or_init(|| std::hash::RandomState::new().hash_one(0_u64));
    twox_hash::XxHash3_64::oneshot_with_seed(seed, text.as_bytes())
}

fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn encode(text: &str, out: &mut String) {
    if text.bytes().all(unreserved) {
        out.push_str(text);
        return;
    }
    for byte in text.bytes() {
        if unreserved(byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Percent-encodes what is written into it.
struct Encoding<'a>(&'a mut String);

impl fmt::Write for Encoding<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        encode(text, self.0);
        Ok(())
    }
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (hex, tail) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn split_parts(text: &str) -> impl Iterator<Item = &str> {
    (!text.is_empty()).then(|| text.split('&')).into_iter().flatten()
}

fn parse_part(text: &str) -> Option<KeyPart<'_>> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(decode(value)?)),
        None => (text, None),
    };
    let name = if name == ":" { Cow::Borrowed("") } else { decode(name)? };
    Some(KeyPart { name, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_as_long_as_the_limit_and_no_longer() {
        let key = |len: usize| CacheKey::new("k", 1, [KeyPart::flag("x".repeat(len))]);
        let frame = key(1).as_str().len() - 1;
        assert!(!key(CacheKey::MAX_LEN - frame).is_too_long());
        assert!(key(CacheKey::MAX_LEN - frame + 1).is_too_long());
    }
}
