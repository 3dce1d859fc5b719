//! The registry: what it reads, what it refuses, and where it works.

use std::sync::Arc;

use futures_util::FutureExt;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use tierkeep::codec::{
    CodecOptions, CodecStats, Codecs, Compressor, Format, GzipCompressor, JsonFormat, PassthroughCompressor,
    PostcardFormat, Visit, ZstdCompressor, frame, value_type,
};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Backend, ErrorKind, Object, Result};

use super::support::{
    Coded, HandRuntime, Role, User, codecs, default_codecs, key, read, sealed, typical_meta, user,
};

fn any_user() -> impl Strategy<Value = User> {
    let role = prop_oneof![
        Just(Role::Guest),
        any::<u32>().prop_map(Role::Member),
        any::<i64>().prop_map(|since| Role::Admin { since, by: Some(Box::new(Role::Guest)) }),
    ];
    let finite = proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO;
    let scores = proptest::collection::btree_map(".{0,6}", finite, 0..6);
    (any::<u64>(), ".{0,40}", proptest::collection::vec(".{0,60}", 0..30), role, scores)
        .prop_map(|(id, name, tags, role, scores)| User { id, name, tags, role, scores })
}

proptest! {
    #[test]
    fn any_value_reads_back_through_any_format_and_compressor(value in any_user()) {
        let gzip = GzipCompressor::new(1).with_min_size(10);
        let zstd = ZstdCompressor::new(3).with_min_size(10);
        for format in [&PostcardFormat as &dyn Format, &JsonFormat] {
            for compressor in [&PassthroughCompressor as &dyn Compressor, &gzip, &zstd] {
                let (meta, back) = read::<User>(&sealed(&value, format, compressor)).unwrap();
                prop_assert_eq!(&*back, &value);
                prop_assert_eq!(meta, typical_meta());
            }
        }
    }
}

#[test]
fn old_entries_stay_readable_when_a_tier_changes_its_format_and_compressor() {
    let codecs = default_codecs();
    let value: Object = Arc::new(user(1));
    let ty = value_type::<User>();
    let before: Arc<dyn Backend> = Arc::new(Coded(JsonFormat, ZstdCompressor::default().with_min_size(0)));
    let after: Arc<dyn Backend> = Arc::new(Coded(PostcardFormat, GzipCompressor::default()));
    for backend in [before, after] {
        let encoded = codecs.encode(value.clone(), ty.clone(), backend).now_or_never().unwrap().unwrap();
        let raw = encoded.seal(&key(1), &typical_meta());
        let (header, payload) = frame::open(&raw, &key(1)).unwrap();
        let back = codecs.decode(header, payload, ty.clone()).now_or_never().unwrap().unwrap();
        assert_eq!(back.downcast_ref::<User>(), Some(&user(1)));
    }
}

#[test]
fn a_value_is_stored_plain_if_compression_does_not_pay() {
    let codecs = default_codecs();
    let ty = value_type::<Vec<u8>>();
    let compressed = |bytes: Vec<u8>, min_size: usize| {
        let value: Object = Arc::new(bytes);
        let zstd = ZstdCompressor::default().with_min_size(min_size);
        let encoded = codecs.encode_now(&value, &*ty, &PostcardFormat, &zstd).unwrap();
        let raw = encoded.clone().seal(&key(1), &typical_meta());
        assert_eq!(*read::<Vec<u8>>(&raw).unwrap().1, *value.downcast_ref::<Vec<u8>>().unwrap());
        encoded.is_compressed()
    };
    assert!(compressed(vec![0; 1000], 0));
    assert!(!compressed(vec![0; 1000], 2000));
    let noise = (0..1000_u32).map(|i| twox_hash::XxHash3_64::oneshot(&i.to_le_bytes()) as u8).collect();
    assert!(!compressed(noise, 0));
    assert!(!compressed(Vec::new(), 0));
}

#[test]
fn a_value_over_the_limit_is_neither_written_nor_read() {
    let (small, _) = codecs(CodecOptions::default().max_value(100));
    let ty = value_type::<Vec<u8>>();
    let encode = |bytes: usize| {
        let value: Object = Arc::new(vec![0_u8; bytes]);
        small.encode_now(&value, &*ty, &PostcardFormat, &ZstdCompressor::default())
    };
    encode(99).unwrap(); // and a byte of length
    let error = encode(100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.message().contains("101 bytes"), "{error}");

    for compressor in [&PassthroughCompressor as &dyn Compressor, &ZstdCompressor::default().with_min_size(0)]
    {
        let raw = sealed(&vec![0_u8; 100], &PostcardFormat, compressor);
        let (header, payload) = frame::open(&raw, &key(1)).unwrap();
        assert_eq!(small.decode_now(&header, &payload, &*ty).unwrap_err().kind(), ErrorKind::Decode);
    }
}

#[derive(Debug, Clone)]
struct Touchy(bool);

impl Serialize for Touchy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(!self.0, "will not be written");
        serializer.serialize_u8(7)
    }
}

impl<'de> Deserialize<'de> for Touchy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u8::deserialize(deserializer)?;
        panic!("will not be read")
    }
}

#[test]
fn a_panicking_serde_implementation_is_an_error() {
    let codecs = default_codecs();
    let ty = value_type::<Touchy>();
    let backend: Arc<dyn Backend> = Arc::new(Coded(PostcardFormat, PassthroughCompressor));

    let panicky: Object = Arc::new(Touchy(true));
    let error = codecs.encode_now(&panicky, &*ty, &PostcardFormat, &PassthroughCompressor).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert!(error.message().contains("will not be written"), "{error}");

    let error = read::<Touchy>(&sealed(&Touchy(false), &PostcardFormat, &PassthroughCompressor)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert!(error.message().contains("will not be read"), "{error}");

    let checked = codecs.check(Arc::new(Touchy(false)), ty, backend).now_or_never().unwrap();
    assert_eq!(checked.unwrap_err().kind(), ErrorKind::Panicked);
}

#[test]
fn a_panic_on_the_pool_is_an_error() {
    let (codecs, runtime) = codecs(CodecOptions::default());
    let backend: Arc<dyn Backend> = Arc::new(Coded(PostcardFormat, PassthroughCompressor));
    // It cannot be measured either, so it goes to the pool.
    let mut encoding = Box::pin(codecs.encode(Arc::new(Touchy(true)), value_type::<Touchy>(), backend));
    assert!(encoding.as_mut().now_or_never().is_none());
    assert!(runtime.run_one());
    assert_eq!(encoding.now_or_never().unwrap().unwrap_err().kind(), ErrorKind::Panicked);
    assert_eq!(codecs.stats().encode_failures, 1);
}

/// A compressor or format that misbehaves as told.
#[derive(Clone, Copy)]
enum Broken {
    Panics,
    Cuts,
    Reserved,
}

impl Compressor for Broken {
    fn id(&self) -> u8 {
        if matches!(self, Self::Reserved) { 5 } else { 130 }
    }

    fn name(&self) -> &'static str {
        "broken"
    }

    fn compress(&self, _: &[u8], out: &mut Vec<u8>) -> Result<()> {
        assert!(!matches!(self, Self::Panics), "compressing panics");
        out.clear();
        Ok(())
    }

    fn decompress(&self, packed: &[u8], _: usize) -> Result<Vec<u8>> {
        Ok(packed.to_vec())
    }
}

impl Format for Broken {
    fn id(&self) -> u8 {
        Compressor::id(self)
    }

    fn name(&self) -> &'static str {
        "broken"
    }

    fn encode(&self, _: &dyn erased_serde::Serialize, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        Ok(())
    }

    fn decode(&self, _: &[u8], _: Visit<'_>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_broken_format_or_compressor_is_an_error() {
    let encode = |format: &dyn Format, compressor: Broken| {
        let options = CodecOptions::default().format(Arc::new(Broken::Cuts)).compressor(Arc::new(compressor));
        let value: Object = Arc::new("text".to_owned());
        let (codecs, _) = codecs(options);
        codecs.encode_now(&value, &*value_type::<String>(), format, &compressor).unwrap_err().kind()
    };
    assert_eq!(encode(&PostcardFormat, Broken::Panics), ErrorKind::Panicked);
    assert_eq!(encode(&PostcardFormat, Broken::Cuts), ErrorKind::Encode);
    assert_eq!(encode(&Broken::Cuts, Broken::Cuts), ErrorKind::Encode);
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let value: Object = Arc::new("text".to_owned());
    let encode = |format: &dyn Format, compressor: &dyn Compressor| {
        let error =
            default_codecs().encode_now(&value, &*value_type::<String>(), format, compressor).unwrap_err();
        assert!(error.message().contains("`broken` with id 130"), "{error}");
        error.kind()
    };
    assert_eq!(encode(&Broken::Cuts, &PassthroughCompressor), ErrorKind::Config);
    assert_eq!(encode(&PostcardFormat, &Broken::Cuts), ErrorKind::Config);
}

/// Postcard under an id of the application's.
struct Own;

impl Format for Own {
    fn id(&self) -> u8 {
        131
    }

    fn name(&self) -> &'static str {
        "own"
    }

    fn encode(&self, value: &dyn erased_serde::Serialize, out: &mut Vec<u8>) -> Result<()> {
        PostcardFormat.encode(value, out)
    }

    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<()> {
        PostcardFormat.decode(bytes, visit)
    }
}

#[test]
fn what_a_backend_brings_along_is_known_once_the_backend_is() {
    let backend: Arc<dyn Backend> = Arc::new(Coded(Own, PassthroughCompressor));
    // Tiers may share a format; the engine's own need no registration.
    let other: Arc<dyn Backend> = Arc::new(Coded(Own, ZstdCompressor::default()));
    let (codecs, _) = codecs(CodecOptions::default().backend(&backend).backend(&other));
    let (value, ty): (Object, _) = (Arc::new(user(1)), value_type::<User>());
    let encoded = codecs.encode(value, ty.clone(), backend).now_or_never().unwrap().unwrap();
    let (header, payload) = frame::open(&encoded.seal(&key(1), &typical_meta()), &key(1)).unwrap();
    assert_eq!(header.format, 131);
    let back = codecs.decode_now(&header, &payload, &*ty).unwrap();
    assert_eq!(back.downcast_ref::<User>(), Some(&user(1)));
}

#[test]
fn options_that_cannot_work_are_refused() {
    let runtime = RuntimeHandle::new(HandRuntime::default());
    let refused = |options: CodecOptions, says: &str| {
        let error = Codecs::new(options, &runtime).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(says), "{error}");
    };
    let defaults = CodecOptions::default;
    refused(defaults().workers(0), "worker");
    refused(defaults().queue(0), "queue");
    refused(defaults().max_value(0), "value");
    refused(defaults().format(Arc::new(Broken::Reserved)), "id 5");
    refused(defaults().compressor(Arc::new(Broken::Reserved)), "id 5");
    refused(defaults().format(Arc::new(Broken::Cuts)).format(Arc::new(Broken::Cuts)), "twice");
    refused(defaults().compressor(Arc::new(Broken::Cuts)).compressor(Arc::new(Broken::Cuts)), "twice");
    defaults().format(Arc::new(Broken::Cuts)).compressor(Arc::new(Broken::Cuts)).validate().unwrap();
}

/// Encodes and decodes `bytes` of text, on the pool as far as it is used.
fn through(compressor: impl Compressor, bytes: usize) -> CodecStats {
    let (codecs, runtime) = codecs(CodecOptions::default());
    let value: Object = Arc::new("x".repeat(bytes));
    let ty = value_type::<String>();
    let backend: Arc<dyn Backend> = Arc::new(Coded(PostcardFormat, compressor));
    let mut encoding = Box::pin(codecs.encode(value.clone(), ty.clone(), backend));
    let encoded = encoding.as_mut().now_or_never().unwrap_or_else(|| {
        assert!(runtime.run_one());
        encoding.now_or_never().unwrap()
    });
    let raw = encoded.unwrap().seal(&key(1), &typical_meta());
    let (header, payload) = frame::open(&raw, &key(1)).unwrap();
    let mut decoding = Box::pin(codecs.decode(header, payload, ty));
    let decoded = decoding.as_mut().now_or_never().unwrap_or_else(|| {
        assert!(runtime.run_one());
        decoding.now_or_never().unwrap()
    });
    assert_eq!(decoded.unwrap().downcast_ref::<String>(), value.downcast_ref::<String>());
    codecs.stats()
}

#[test]
fn small_values_are_coded_in_place_and_large_ones_on_the_pool() {
    let places = |stats: CodecStats| {
        (stats.inline_encodes, stats.pooled_encodes, stats.inline_decodes, stats.pooled_decodes)
    };
    assert_eq!(places(through(PassthroughCompressor, 16_000)), (1, 0, 1, 0));
    assert_eq!(places(through(PassthroughCompressor, 17_000)), (0, 1, 0, 1));
    assert_eq!(places(through(ZstdCompressor::default(), 4_000)), (1, 0, 1, 0));
    assert_eq!(places(through(ZstdCompressor::default(), 5_000)), (0, 1, 1, 0));
    // What counts for decoding is the size once unpacked.
    assert_eq!(places(through(ZstdCompressor::default(), 17_000)), (0, 1, 0, 1));
}

#[test]
fn the_counters_tell_bytes_and_failures() {
    let stats = through(PassthroughCompressor, 1000);
    assert_eq!((stats.bytes_out, stats.bytes_in), (1002, 1002));
    assert_eq!((stats.encode_failures, stats.decode_failures, stats.rejected), (0, 0, 0));
    assert!(through(ZstdCompressor::default(), 1000).bytes_out < 100);

    let codecs = default_codecs();
    let raw = sealed(&7_u8, &PostcardFormat, &PassthroughCompressor);
    let (header, payload) = frame::open(&raw, &key(1)).unwrap();
    assert!(codecs.decode_now(&header, &payload, &*value_type::<String>()).is_err());
    let wrong: Object = Arc::new(7_u8);
    let ty = value_type::<String>();
    assert!(codecs.encode_now(&wrong, &*ty, &PostcardFormat, &PassthroughCompressor).is_err());
    let stats = codecs.stats();
    assert_eq!((stats.encode_failures, stats.decode_failures), (1, 1));
}
