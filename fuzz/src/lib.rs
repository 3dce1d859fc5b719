//! What each fuzz target does with its bytes. Plain functions, so that `tests/fuzz_corpus.rs` of the engine can run
//! them on stable Rust over random and mutated inputs; with cargo-fuzz, which needs nightly, in this folder's parent:
//!
//! ```text
//! cargo install cargo-fuzz
//! cargo +nightly fuzz run frame -- -max_total_time=600     # or: payload, key, format, compressor
//! ```
//!
//! A body returns whatever the bytes are; it panics only if a promise is broken.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use tierkeep::codec::{
    CodecOptions, Codecs, Compressor, Format, GzipCompressor, JsonFormat, PassthroughCompressor,
    PostcardFormat, ZstdCompressor, frame as frames, value_type,
};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{CacheKey, ErrorKind, KeyPart, Meta, Object, Raw};
use tierkeep_sim::Sim;
use twox_hash::XxHash3_64;

/// A value with most of what serde offers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Value {
    number: u64,
    signed: i32,
    float: f64,
    text: String,
    list: Vec<Option<u16>>,
    map: BTreeMap<String, Shape>,
}

/// Every kind of variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Shape {
    /// Without anything.
    Unit,
    /// Around one value.
    Wrapped(char),
    /// Around several.
    Pair(bool, u8),
    /// With names, and itself.
    Deep {
        /// Deeper.
        inner: Option<Box<Shape>>,
        /// Bytes.
        bytes: Vec<u8>,
    },
}

/// A store's bytes as a frame: opened, checked, its extensions walked, its value decoded. Whether they hold one.
pub fn frame(data: &[u8]) -> bool {
    let raw = Raw::copy_from_slice(data);
    if let Ok(header) = frames::Header::parse(&raw) {
        // Sound or not, nothing lies outside the frame.
        assert_eq!(header.header_len + header.payload_len, raw.len());
        assert!(header.extensions().map(|(_, bytes)| bytes.len()).sum::<usize>() < raw.len());
    }
    read(&raw)
}

/// Any bytes as the payload of a frame that is sound otherwise, plain or said to be compressed, in each format: what
/// lies behind the checksums. Whether they hold a value.
pub fn payload(data: &[u8]) -> bool {
    let [choice, size, payload @ ..] = data else { return false };
    let compressor = choice / 2 % 3;
    // What it is said to unpack to.
    let plain_len = payload.len() + usize::from(*size);
    read(&forge(1 + choice % 2, compressor, plain_len, payload))
}

/// Text as a key, and bytes as the parts of one: what is printed reads back.
pub fn key(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(key) = CacheKey::parse(text)
    {
        assert_eq!(key.as_str(), text);
        let _ = (key.version(), key.parts().count());
        assert!(text.starts_with(key.prefix()));
    }
    let mut pieces = data.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    let prefix = pieces.next().unwrap_or_default();
    let rest: Vec<_> = pieces.collect();
    let parts: Vec<_> = rest
        .iter()
        .map(|piece| match piece.split_once('\u{1}') {
            Some((name, value)) => KeyPart::new(name, Some(value)),
            None => KeyPart::flag(&**piece),
        })
        .collect();
    let version = u32::try_from(data.len() % 7).unwrap_or(0);
    let key = CacheKey::new(&prefix, version, parts.clone());
    assert_eq!(key.parts().collect::<Vec<_>>(), parts);
    assert_eq!(key.version(), version);
    assert_eq!(CacheKey::parse(key.as_str()).as_ref(), Some(&key));
    assert!(key.as_str().is_ascii());
}

/// Bytes as a value in each format. One that decodes encodes to something that decodes to the same.
pub fn format(data: &[u8]) {
    for format in formats() {
        round_trip::<Value>(data, format);
        round_trip::<Shape>(data, format);
        round_trip::<Vec<String>>(data, format);
        round_trip::<BTreeMap<u32, Option<f32>>>(data, format);
        round_trip::<(u128, char, Vec<()>)>(data, format);
    }
}

/// Bytes as compressed ones, said to unpack to some size; and what is compressed unpacks to itself.
pub fn compressor(data: &[u8]) {
    let [low, high, packed @ ..] = data else { return };
    let size = usize::from(u16::from_le_bytes([*low, *high]));
    for compressor in compressors() {
        if let Ok(plain) = compressor.decompress(packed, size)
            && compressor.id() != PassthroughCompressor.id()
        {
            assert_eq!(plain.len(), size);
        }
        let mut again = Vec::new();
        compressor.compress(data, &mut again).expect("anything can be compressed");
        assert_eq!(compressor.decompress(&again, data.len()).expect("what was compressed"), data);
    }
}

/// Inputs that mean something to each body, to start from: its name and they.
pub fn seeds(body: &str) -> Vec<Vec<u8>> {
    let value = sample();
    let object: Object = Arc::new(value.clone());
    let encoded = formats().map(|format| {
        let mut out = Vec::new();
        value_type::<Value>().encode(&object, format, &mut out).expect("a value that can be encoded");
        out
    });
    let packed = || {
        compressors().into_iter().flat_map(|compressor| {
            encoded.clone().into_iter().map(move |plain| {
                let mut out = u16::try_from(plain.len()).unwrap_or(0).to_le_bytes().to_vec();
                compressor.compress(&plain, &mut out).expect("anything can be compressed");
                out
            })
        })
    };
    match body {
        "frame" => formats()
            .into_iter()
            .flat_map(|format| {
                compressors().map(|compressor| seal_value(&object, format, compressor).to_vec())
            })
            .collect(),
        "payload" => (0_u8..)
            .zip(&encoded)
            .flat_map(|(format, plain)| {
                compressors().map(|compressor| {
                    let mut packed = Vec::new();
                    compressor.compress(plain, &mut packed).expect("anything can be compressed");
                    let shrunk = u8::try_from(plain.len().saturating_sub(packed.len())).unwrap_or(0);
                    [&[format + 2 * compressor.id(), shrunk], &packed[..]].concat()
                })
            })
            .collect(),
        "key" => ["user:v1:id=7&full", "a%20b:v0:", "a:v4294967295::&:=&x=%00", "user\0id\u{1}7\0full"]
            .map(|text| text.as_bytes().to_vec())
            .to_vec(),
        "format" => encoded.to_vec(),
        _ => packed().collect(),
    }
}

fn sample() -> Value {
    let deep = Shape::Deep { inner: Some(Box::new(Shape::Wrapped('é'))), bytes: vec![0, 200, 7] };
    Value {
        number: u64::MAX,
        signed: -3,
        float: 0.1,
        text: "a text that repeats, a text that repeats, ".repeat(4),
        list: vec![None, Some(0), Some(65_535)],
        map: BTreeMap::from([
            ("unit".into(), Shape::Unit),
            ("pair".into(), Shape::Pair(true, 9)),
            ("deep".into(), deep),
        ]),
    }
}

fn formats() -> [&'static dyn Format; 2] {
    [&PostcardFormat, &JsonFormat]
}

fn compressors() -> [&'static dyn Compressor; 3] {
    static ALL: OnceLock<(GzipCompressor, ZstdCompressor)> = OnceLock::new();
    let (gzip, zstd) = ALL
        .get_or_init(|| (GzipCompressor::new(1).with_min_size(0), ZstdCompressor::new(1).with_min_size(0)));
    [&PassthroughCompressor, gzip, zstd]
}

fn codecs() -> &'static Codecs {
    static CODECS: OnceLock<Arc<Codecs>> = OnceLock::new();
    CODECS.get_or_init(|| {
        // Nothing is run on it: what is decoded here is decoded in place.
        let runtime = RuntimeHandle::new(Sim::new(0).runtime());
        Codecs::new(CodecOptions::default(), &runtime).expect("the default options")
    })
}

fn known_key() -> CacheKey {
    CacheKey::new("fuzz", 1, [KeyPart::flag("7")])
}

fn seal_value(object: &Object, format: &dyn Format, compressor: &dyn Compressor) -> Raw {
    let encoded = codecs().encode_now(object, &*value_type::<Value>(), format, compressor);
    encoded.expect("a value that can be encoded").seal(&known_key(), &Meta::default())
}

/// Reads a frame as a cache would. It is a value or a decode failure; which of them is returned.
fn read(raw: &Raw) -> bool {
    let opened = frames::open(raw, &known_key());
    let decoded =
        opened.and_then(|(header, payload)| codecs().decode_now(&header, &payload, &*value_type::<Value>()));
    match decoded {
        Ok(_) => true,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Decode | ErrorKind::TooLarge), "{error}");
            false
        }
    }
}

fn round_trip<T>(data: &[u8], format: &dyn Format)
where
    T: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let ty = value_type::<T>();
    let Ok(value) = ty.decode(data, format) else { return };
    let mut once = Vec::new();
    if ty.encode(&value, format, &mut once).is_err() {
        return;
    }
    // Compared as bytes: a NaN is not itself.
    let again = ty.decode(&once, format).expect("what was encoded decodes");
    let mut twice = Vec::new();
    ty.encode(&again, format, &mut twice).expect("as before");
    assert_eq!(once, twice, "{} in {}", ty.type_name(), format.name());
}

/// A frame with fitting checksums around any payload, as one could make who writes to the store.
fn forge(format: u8, compressor: u8, plain_len: usize, payload: &[u8]) -> Raw {
    let mut out = vec![0xC7, b'T', 1, 0, format, compressor];
    out.extend([0; 13]); // stamp, and created with it
    out.extend(XxHash3_64::oneshot(known_key().as_str().as_bytes()).to_le_bytes());
    if compressor != 0 {
        put_varint(&mut out, plain_len);
    }
    put_varint(&mut out, payload.len());
    out.extend(&XxHash3_64::oneshot(payload).to_le_bytes()[..4]);
    let checksum = XxHash3_64::oneshot(&out).to_le_bytes();
    out.extend(&checksum[..4]);
    out.extend(payload);
    out.into()
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7F {
        out.push(u8::try_from(value & 0x7F).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}
