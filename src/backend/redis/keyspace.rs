//! What an entry is called in the store: the namespace, a colon, and the key in the backend's key format.

use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::key_format::CacheKeyFormat;

/// The longest namespace, in bytes once encoded.
const MAX_NAMESPACE: usize = 256;

/// The keys of one namespace. Everything outside it is foreign.
#[derive(Debug, Clone)]
pub(super) struct Keyspace {
    /// Ends in a colon, which no encoded namespace contains: no namespace is the beginning of another.
    prefix: String,
    format: CacheKeyFormat,
}

impl Keyspace {
    /// # Errors
    /// [`ErrorKind::Config`] if the namespace is empty or over 256 bytes.
    pub(super) fn new(namespace: &str, format: CacheKeyFormat) -> Result<Self> {
        let mut prefix = String::with_capacity(namespace.len() + 1);
        encode(namespace, &mut prefix);
        let problem = if prefix.is_empty() {
            "the Redis namespace is empty: name it with `namespace`, so that no other application's keys are touched"
        } else if prefix.len() > MAX_NAMESPACE {
            "the Redis namespace is over 256 bytes"
        } else {
            prefix.push(':');
            return Ok(Self { prefix, format });
        };
        Err(Error::new(ErrorKind::Config, problem))
    }

    pub(super) fn format(&self) -> &CacheKeyFormat {
        &self.format
    }

    /// Appends the key's name in the store.
    pub(super) fn write(&self, key: &CacheKey, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        match self.format {
            CacheKeyFormat::UrlEncoded => out.extend_from_slice(key.as_str().as_bytes()),
            CacheKeyFormat::Compact => escape(&self.format.serialize(key), out),
        }
    }

    /// The key's name in the store.
    pub(super) fn name(&self, key: &CacheKey) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.prefix.len() + key.as_str().len());
        self.write(key, &mut out);
        out
    }

    /// The key with this name; `None`: it is not an entry of this namespace.
    pub(super) fn parse(&self, name: &[u8]) -> Option<CacheKey> {
        let name = name.strip_prefix(self.prefix.as_bytes())?;
        match self.format {
            CacheKeyFormat::UrlEncoded => self.format.deserialize(name).ok(),
            CacheKeyFormat::Compact => self.format.deserialize(&unescape(name)?).ok(),
        }
    }

    /// A name for the backend's own records. No key has it: `!` begins neither a text nor a compact key.
    pub(super) fn reserved(&self, what: &str) -> String {
        format!("{}!{what}", self.prefix)
    }

    /// The glob that matches the names of all entries, or of those of one region where names show it.
    pub(super) fn pattern(&self, region: Option<&str>) -> String {
        match (region, self.format) {
            (Some(region), CacheKeyFormat::UrlEncoded) => format!("{}{region}:*", self.prefix),
            _ => format!("{}*", self.prefix),
        }
    }
}

/// Compact keys are bytes of any kind; two of them would be read as a cluster's hash tag, by nodes and in the names of
/// guards.
fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        match byte {
            b'{' => out.extend_from_slice(b"%B"),
            b'}' => out.extend_from_slice(b"%D"),
            b'%' => out.extend_from_slice(b"%%"),
            byte => out.push(byte),
        }
    }
}

fn unescape(name: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut bytes) = (Vec::with_capacity(name.len()), name.iter());
    while let Some(&byte) = bytes.next() {
        out.push(match byte {
            b'%' => match bytes.next()? {
                b'B' => b'{',
                b'D' => b'}',
                b'%' => b'%',
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(out)
}

/// As keys are encoded: nothing is left that a glob or a cluster's hash tag would read.
fn encode(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push('%');
            out.push(HEX[usize::from(byte >> 4)].into());
            out.push(HEX[usize::from(byte & 15)].into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyPart;

    #[test]
    fn names_are_readable_and_read_back() {
        let key = CacheKey::new("user", 1, [KeyPart::new("id", Some("7"))]);
        let keys = Keyspace::new("shop/eu", CacheKeyFormat::UrlEncoded).unwrap();
        assert_eq!(keys.name(&key), b"shop/eu:user:v1:id=7");
        for format in [CacheKeyFormat::UrlEncoded, CacheKeyFormat::Compact] {
            let keys = Keyspace::new("shop", format).unwrap();
            assert_eq!(keys.parse(&keys.name(&key)), Some(key.clone()));
            assert_eq!(keys.parse(keys.reserved("clears").as_bytes()), None);
        }
    }

    #[test]
    fn no_name_has_a_hash_tag_of_its_own() {
        for format in [CacheKeyFormat::UrlEncoded, CacheKeyFormat::Compact] {
            let keys = Keyspace::new("shop", format).unwrap();
            for text in ["a}b", "{a}", "%D", "%", "ä{"] {
                let key = CacheKey::new("user", 1, [KeyPart::new("id", Some(text))]);
                let name = keys.name(&key);
                assert!(!name.contains(&b'{') && !name.contains(&b'}'), "{text}");
                assert_eq!(keys.parse(&name), Some(key));
            }
        }
        let keys = Keyspace::new("shop", CacheKeyFormat::Compact).unwrap();
        assert_eq!((keys.parse(b"shop:%"), keys.parse(b"shop:%x")), (None, None));
    }

    #[test]
    fn no_namespace_reaches_into_another() {
        let names = ["a", "a:b", "a*", "{a}", "a%3Ab", "ä"];
        let prefix = |name| Keyspace::new(name, CacheKeyFormat::UrlEncoded).unwrap().prefix;
        for one in names {
            for other in names {
                assert_eq!(prefix(one).starts_with(&prefix(other)), one == other, "{one} and {other}");
            }
            assert!(!prefix(one).contains(['*', '?', '[', '{', '\\']));
        }
        assert_eq!(Keyspace::new("", CacheKeyFormat::UrlEncoded).unwrap_err().kind(), ErrorKind::Config);
    }
}
