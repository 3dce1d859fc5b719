//! Whatever a store hands back is an error or the value: never a panic, a hang or an allocation out of proportion.

use std::collections::HashMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use tierkeep::codec::{
    Compressor, Format, GzipCompressor, JsonFormat, PassthroughCompressor, PostcardFormat, ZstdCompressor,
    frame,
};
use tierkeep::{ErrorKind, Raw};

use super::support::{Forged, User, key, read, sealed, user};

fn all_compressors() -> [Box<dyn Compressor>; 3] {
    [
        Box::new(PassthroughCompressor),
        Box::new(GzipCompressor::default().with_min_size(0)),
        Box::new(ZstdCompressor::default().with_min_size(0)),
    ]
}

fn frames() -> Vec<Raw> {
    let formats: [&dyn Format; 2] = [&PostcardFormat, &JsonFormat];
    let value = User { tags: vec!["the same tag again".into(); 12], ..user(5) };
    let pairs = formats.iter().flat_map(|format| all_compressors().map(|compressor| (format, compressor)));
    pairs.map(|(format, compressor)| sealed(&value, *format, &*compressor)).collect()
}

#[test]
fn every_truncation_is_an_error() {
    for raw in frames() {
        for length in 0..raw.len() {
            assert_eq!(read::<User>(&raw.slice(..length)).unwrap_err().kind(), ErrorKind::Decode);
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error_or_leaves_the_value_as_it_was() {
    for raw in frames() {
        let (meta, value) = read::<User>(&raw).unwrap();
        for bit in 0..raw.len() * 8 {
            let mut flipped = raw.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match read::<User>(&flipped.into()) {
                Ok((m, v)) => assert_eq!((m, &v), (meta, &value), "bit {bit}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Decode),
            }
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_are_an_error(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read::<User>(&bytes.clone().into()).is_err());
        // And such as get past the first checks.
        bytes.splice(0..0, [0xC7, b'T', 1]);
        prop_assert!(read::<User>(&bytes.into()).is_err());
    }

    #[test]
    fn random_payloads_in_sound_frames_are_an_error_or_a_value(
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        format in 0_u8..4,
        compressor in 0_u8..4,
        plain_len in prop_oneof![0_u64..300, any::<u64>()],
    ) {
        let raw = Forged { format, ..Forged::packed(compressor, plain_len, &payload) }.seal();
        let error = read::<User>(&raw).err().or(read::<HashMap<String, Vec<Option<u8>>>>(&raw).err());
        prop_assert!(error.is_none_or(|error| error.kind() == ErrorKind::Decode));
    }
}

/// The most that was allocated at once on this thread while `work` ran.
fn peak(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).bytes_max
}

#[track_caller]
fn cheaply_refused(forged: &Forged<'_>) {
    let raw = forged.seal();
    // The codecs of `read` are set up within; they take a few kB themselves.
    let bytes = peak(|| assert_eq!(read::<User>(&raw).unwrap_err().kind(), ErrorKind::Decode));
    assert!(bytes < 32 << 10, "{bytes} bytes were allocated");
}

#[test]
fn claimed_lengths_allocate_nothing() {
    for claim in [1 << 25, 1 << 32, 1 << 62, u64::MAX] {
        cheaply_refused(&Forged { payload_len: claim, ..Forged::plain(b"abc") });
        for compressor in [1, 2] {
            cheaply_refused(&Forged::packed(compressor, claim, b"abc"));
        }
        // A string and a list of this length, in postcard.
        let mut list = postcard::to_stdvec(&(1_u64, claim)).unwrap();
        list.extend(*b"abc");
        cheaply_refused(&Forged::plain(&list));
    }
}

#[test]
fn a_list_that_claims_to_be_long_allocates_no_more_than_serde_is_willing_to_guess() {
    let claim = postcard::to_stdvec(&u64::MAX).unwrap();
    let raw = Forged::plain(&claim).seal();
    let bytes = peak(|| drop(read::<Vec<[u64; 16]>>(&raw).unwrap_err()));
    assert!(bytes < 2 << 20, "{bytes} bytes were allocated");
}

#[test]
fn a_compression_bomb_is_refused_at_the_size_it_claims() {
    let plain = vec![0_u8; 32 << 20];
    for compressor in [&GzipCompressor::default() as &dyn Compressor, &ZstdCompressor::default()] {
        let mut bomb = Vec::new();
        compressor.compress(&plain, &mut bomb).unwrap();
        assert!(bomb.len() < 64 << 10);
        // It unpacks to more than it claims, or claims more than is allowed.
        for claim in [10, 1000, plain.len() as u64] {
            let raw = Forged::packed(compressor.id(), claim, &bomb).seal();
            let bytes = peak(|| assert_eq!(read::<User>(&raw).unwrap_err().kind(), ErrorKind::Decode));
            assert!(bytes < 128 << 10, "{bytes} bytes were allocated by {}", compressor.name());
        }
    }
}

#[test]
fn a_value_that_unpacks_to_less_than_it_claims_is_refused() {
    for compressor in [&GzipCompressor::default() as &dyn Compressor, &ZstdCompressor::default()] {
        let mut packed = Vec::new();
        compressor.compress(&postcard::to_stdvec("hello").unwrap(), &mut packed).unwrap();
        assert_eq!(*read::<String>(&Forged::packed(compressor.id(), 6, &packed).seal()).unwrap().1, "hello");
        assert!(read::<String>(&Forged::packed(compressor.id(), 7, &packed).seal()).is_err());
        packed.push(0);
        assert!(read::<String>(&Forged::packed(compressor.id(), 6, &packed).seal()).is_err());
    }
}

#[test]
fn bytes_after_the_value_are_refused() {
    let mut payload = postcard::to_stdvec("hello").unwrap();
    payload.push(0);
    let error = read::<String>(&Forged::plain(&payload).seal()).unwrap_err();
    assert!(error.message().contains("1 bytes are left over"), "{error}");
    assert!(read::<String>(&Forged { format: 2, ..Forged::plain(b"\"hello\" 7") }.seal()).is_err());
}

#[test]
fn unknown_formats_compressors_and_dictionaries_are_named() {
    let message = |forged: Forged<'_>| {
        let error = read::<String>(&forged.seal()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        error.message().to_owned()
    };
    assert!(message(Forged { format: 99, ..Forged::plain(b"x") }).contains("format 99"));
    assert!(message(Forged::packed(130, 5, b"x")).contains("compressor 130"));
    let dictionary = Forged { dictionary: Some(7), ..Forged::packed(2, 5, b"x") };
    assert!(message(dictionary).contains("dictionary 7 of compressor 2"));
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Chain {
    next: Option<Box<Chain>>,
}

#[test]
fn a_value_nested_without_end_does_not_end_the_stack() {
    let error = read::<Chain>(&Forged::plain(&vec![1; 4 << 20]).seal()).unwrap_err();
    assert!(error.message().contains("nested too deeply"), "{error}");
    let json = format!("{}null{}", "{\"next\":".repeat(100_000), "}".repeat(100_000));
    assert!(read::<Chain>(&Forged { format: 2, ..Forged::plain(json.as_bytes()) }.seal()).is_err());

    let modest = (0..60).fold(Chain { next: None }, |chain, _| Chain { next: Some(Box::new(chain)) });
    assert_eq!(*read::<Chain>(&sealed(&modest, &PostcardFormat, &PassthroughCompressor)).unwrap().1, modest);
}

#[test]
fn elements_that_take_no_bytes_cannot_go_on_for_ever() {
    let claim = postcard::to_stdvec(&u64::MAX).unwrap();
    let error = read::<Vec<()>>(&Forged::plain(&claim).seal()).unwrap_err();
    assert!(error.message().contains("more elements"), "{error}");
    let raw = sealed(&vec![(); 1000], &PostcardFormat, &PassthroughCompressor);
    assert_eq!(read::<Vec<()>>(&raw).unwrap().1.len(), 1000);
}

#[test]
fn a_payload_swapped_for_another_of_its_length_is_refused() {
    let raw = sealed(&"hello".to_owned(), &PostcardFormat, &PassthroughCompressor);
    let (header, payload) = frame::open(&raw, &key(1)).unwrap();
    header.verify(&payload).unwrap();
    assert_eq!(header.verify(&vec![0; payload.len()]).unwrap_err().kind(), ErrorKind::Decode);
}
