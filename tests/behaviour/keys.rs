//! Any text is a legal key, whatever it contains, and different keys never share a text.

use proptest::prelude::*;
use tierkeep::{CacheKey, KeyPart};

/// A name, and a value unless it is a flag.
type Part = (String, Option<String>);

/// Any characters, controls and separators among them more often than by chance.
fn text() -> impl Strategy<Value = String> {
    let special = "[:&=%\\x00-\\x1F\\x7F /?#+-]";
    let piece = prop_oneof![special, "[a-zA-Z0-9._~-]{1,4}", any::<char>().prop_map(String::from)];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    prop::collection::vec((text(), prop::option::of(text())), 0..4)
}

fn key(prefix: &str, version: u32, parts: &[Part]) -> CacheKey {
    CacheKey::new(
        prefix,
        version,
        parts.iter().map(|(name, value)| KeyPart::new(name.as_str(), value.as_deref())),
    )
}

proptest! {
    #[test]
    fn a_key_s_text_reads_back(prefix in text(), version: u32, parts in parts()) {
        let key = key(&prefix, version, &parts);
        let read = CacheKey::parse(&key.to_string()).expect("its own text");
        prop_assert_eq!(&read, &key);
        prop_assert_eq!(read.version(), version);
        let found: Vec<Part> =
            read.parts().map(|part| (part.name().to_owned(), part.value().map(str::to_owned))).collect();
        prop_assert_eq!(found, parts);
        let printable = |byte: u8| byte.is_ascii_graphic();
        prop_assert!(key.as_str().bytes().all(printable), "fit for any log and any store: {}", key);
    }

    #[test]
    fn different_keys_have_different_texts(
        a in (text(), 0_u32..3, parts()),
        b in (text(), 0_u32..3, parts()),
    ) {
        let [left, right] = [&a, &b].map(|(prefix, version, parts)| key(prefix, *version, parts));
        prop_assert_eq!(left == right, a == b);
        prop_assert_eq!(left.as_str() == right.as_str(), a == b);
    }

    #[test]
    fn parts_are_told_apart_by_where_they_end(parts in prop::collection::vec(text(), 1..4)) {
        // The same characters, split elsewhere, are another key.
        let whole = parts.concat();
        let flags = |texts: &[String]| texts.iter().map(|text| (text.clone(), None)).collect::<Vec<_>>();
        let split = key("p", 1, &flags(&parts));
        let joined = key("p", 1, &flags(&[whole]));
        prop_assert_eq!(split == joined, parts.len() == 1);
    }

    #[test]
    fn any_text_is_parsed_without_a_panic(text in ".{0,40}") {
        if let Some(key) = CacheKey::parse(&text) {
            prop_assert_eq!(key.to_string(), text, "only a key's own text is read");
        }
    }
}
