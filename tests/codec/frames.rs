//! Frames read back what was sealed, and say why they cannot be opened.

use std::sync::Arc;

use proptest::option;
use proptest::prelude::*;
use tierkeep::codec::{
    Encoded, Format, Header, PassthroughCompressor, PostcardFormat, Visit, frame, value_type,
};
use tierkeep::{ErrorKind, Meta, Object, Raw, Stamp, Timestamp};

use super::support::{Forged, default_codecs, key, read, sealed, typical_meta, user};

fn encoded(value: Object) -> Encoded {
    let codecs = default_codecs();
    codecs.encode_now(&value, &*value_type::<Vec<u8>>(), &PostcardFormat, &PassthroughCompressor).unwrap()
}

fn any_meta() -> impl Strategy<Value = Meta> {
    // Near times are what happens, far ones what must survive.
    let time = || prop_oneof![any::<u64>(), 1_790_000_000_000_u64..1_790_000_100_000];
    let optional = || option::of(time().prop_map(Timestamp::from_millis));
    (any::<u64>(), any::<u32>(), time(), optional(), optional(), optional()).prop_map(
        |(time, node, created, stale, expire, retain)| Meta {
            stamp: Stamp { time, node },
            created: Timestamp::from_millis(created),
            stale,
            expire,
            retain,
        },
    )
}

proptest! {
    #[test]
    fn any_meta_and_payload_read_back_exactly(
        meta in any_meta(),
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        extensions in proptest::collection::vec((1_u8.., proptest::collection::vec(any::<u8>(), 0..40)), 0..4),
    ) {
        let mut encoded = encoded(Arc::new(bytes));
        let payload = encoded.payload().to_vec();
        for (kind, bytes) in &extensions {
            encoded = encoded.with_extension(*kind, bytes).unwrap();
        }
        let raw = encoded.seal(&key(1), &meta);
        let (header, opened) = frame::open(&raw, &key(1)).unwrap();
        prop_assert_eq!(header.meta, meta);
        prop_assert_eq!(&opened[..], &payload[..]);
        header.verify(&opened).unwrap();
        let found: Vec<_> = header.extensions().map(|(kind, bytes)| (kind, bytes.to_vec())).collect();
        prop_assert_eq!(found, extensions);
    }
}

#[test]
fn a_typical_header_takes_43_bytes() {
    let raw = encoded(Arc::new(vec![7_u8; 1000])).seal(&key(1), &typical_meta());
    assert_eq!(Header::parse(&raw).unwrap().header_len, 43);
    let eternal = Meta { stale: None, expire: None, ..typical_meta() };
    let raw = encoded(Arc::new(vec![7_u8; 1000])).seal(&key(1), &eternal);
    assert_eq!(Header::parse(&raw).unwrap().header_len, 37);
}

#[test]
fn neither_sealing_nor_opening_copies_the_payload() {
    let encoded = encoded(Arc::new(vec![7_u8; 1000]));
    let before = encoded.payload().as_ptr();
    let raw = encoded.seal(&key(1), &typical_meta());
    let (_, payload) = frame::open(&raw, &key(1)).unwrap();
    assert_eq!(payload.as_ptr(), before);
}

#[test]
fn the_forged_frames_of_these_tests_are_well_formed() {
    let payload = postcard::to_stdvec("hello").unwrap();
    assert_eq!(*read::<String>(&Forged::plain(&payload).seal()).unwrap().1, "hello");
}

/// Postcard under an id of its own, read in place.
struct Aligned(usize);

impl Format for Aligned {
    fn id(&self) -> u8 {
        200
    }

    fn name(&self) -> &'static str {
        "aligned"
    }

    fn alignment(&self) -> usize {
        self.0
    }

    fn encode(&self, value: &dyn erased_serde::Serialize, out: &mut Vec<u8>) -> tierkeep::Result<()> {
        PostcardFormat.encode(value, out)
    }

    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> tierkeep::Result<()> {
        PostcardFormat.decode(bytes, visit)
    }
}

#[test]
fn the_payload_starts_where_the_format_wants_it() {
    for alignment in [1, 2, 4, 8, 16, 32, 64] {
        let options = tierkeep::codec::CodecOptions::default().format(Arc::new(Aligned(alignment)));
        let (codecs, _) = super::support::codecs(options);
        let value: Object = Arc::new(vec![7_u8; 100]);
        let ty = value_type::<Vec<u8>>();
        // Each length of the header has its own padding, 1 included, which an extension cannot have.
        for shift in 0..64_u32 {
            let meta = Meta { retain: Some(Timestamp::from_millis(1 << shift)), ..typical_meta() };
            for extension in 0..3_usize {
                let mut encoded =
                    codecs.encode_now(&value, &*ty, &Aligned(alignment), &PassthroughCompressor).unwrap();
                if extension > 0 {
                    encoded = encoded.with_extension(9, &vec![5; extension]).unwrap();
                }
                let raw = encoded.seal(&key(1), &meta);
                let (header, payload) = frame::open(&raw, &key(1)).unwrap();
                assert_eq!(header.header_len % alignment, 0);
                assert_eq!(header.meta, meta);
                assert_eq!(header.extensions().count(), usize::from(extension > 0));
                codecs.decode_now(&header, &payload, &*ty).unwrap();
            }
        }
    }
}

#[track_caller]
fn refused(raw: impl Into<Raw>, says: &str) {
    let error = frame::open(&raw.into(), &key(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(error.message().contains(says), "{error}");
}

#[test]
fn a_frame_that_cannot_be_opened_says_why() {
    let raw = sealed(&user(1), &PostcardFormat, &PassthroughCompressor);
    refused(Raw::new(), "not written by Tierkeep");
    refused(&b"{\"id\": 7}"[..], "not written by Tierkeep");
    refused(raw.slice(..2), "truncated");
    refused(raw.slice(..20), "truncated");
    refused(raw.slice(..raw.len() - 1), "truncated");

    let mut newer = raw.to_vec();
    newer[2] = 9;
    refused(newer, "version 9, newer than the 1");

    let mut damaged = raw.to_vec();
    damaged[12] ^= 1;
    refused(damaged, "header is damaged");

    let mut longer = raw.to_vec();
    longer.extend(*b"abc");
    refused(longer, "3 bytes are left over");

    let error = frame::open(&raw, &key(2)).unwrap_err();
    assert!(error.message().contains("another key"), "{error}");
}

#[test]
fn extensions_have_a_limit_and_a_reserved_kind() {
    let value = || encoded(Arc::new(vec![7_u8; 10]));
    assert_eq!(value().with_extension(0, b"").unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(value().with_extension(1, &[0; 60_001]).unwrap_err().kind(), ErrorKind::TooLarge);
    let raw = value().with_extension(1, &[3; 60_000]).unwrap().seal(&key(1), &typical_meta());
    let (header, payload) = frame::open(&raw, &key(1)).unwrap();
    header.verify(&payload).unwrap();
    assert_eq!(header.extensions().next(), Some((1, &[3; 60_000][..])));
}
