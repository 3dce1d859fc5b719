//! Bytes that nobody wrote, straight into each format: an error or a value, never a panic, a hang or a huge allocation.

use std::sync::Arc;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use tierkeep::codec::{BincodeFormat, Format, RkyvFormat, RonFormat, value_type};
use tierkeep::{ErrorKind, Object};

use super::support::{Rich, formats, rich};

fn encoded(format: &dyn Format) -> Vec<u8> {
    let mut bytes = Vec::new();
    value_type::<Rich>().encode(&(Arc::new(rich(20)) as Object), format, &mut bytes).unwrap();
    bytes
}

#[test]
fn no_truncation_reads_as_the_value() {
    let ty = value_type::<Rich>();
    for format in formats() {
        let bytes = encoded(&*format);
        for length in (0..bytes.len()).step_by(7) {
            match ty.decode(&bytes[..length], &*format) {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Decode, "{} cut at {length}", format.name())
                }
                // An archive's root lies at its end, so a shorter one may validate as something else.
                Ok(back) => {
                    assert_ne!(back.downcast_ref(), Some(&rich(20)), "{} cut at {length}", format.name())
                }
            }
        }
    }
}

#[test]
fn bytes_after_the_value_are_refused() {
    for format in formats().iter().filter(|format| format.name() != "rkyv") {
        let mut bytes = encoded(&**format);
        bytes.extend_from_slice(b" 7");
        let error = value_type::<Rich>().decode(&bytes, &**format).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode, "{}", format.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn changed_bytes_do_no_harm(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        for format in formats() {
            let mut bytes = encoded(&*format);
            for (index, byte) in &changes {
                let index = index.index(bytes.len());
                bytes[index] = *byte;
            }
            // No checksum stands before it here: whatever it is, it comes back as a result.
            if let Err(error) = value_type::<Rich>().decode(&bytes, &*format) {
                prop_assert_eq!(error.kind(), ErrorKind::Decode);
            }
        }
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for format in formats() {
            if let Err(error) = value_type::<Rich>().decode(&bytes, &*format) {
                prop_assert_eq!(error.kind(), ErrorKind::Decode);
            }
        }
    }
}

/// Bytes allocated at the peak of `work`.
fn peak(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).bytes_max
}

#[test]
fn lengths_that_bincode_claims_allocate_nothing() {
    // A varint of 2^40: of a text, of bytes, of a list.
    let claim = [&[253][..], &(1_u64 << 40).to_le_bytes()].concat();
    let types = [value_type::<String>(), value_type::<Vec<u8>>(), value_type::<Vec<String>>()];
    for ty in types {
        let peak = peak(|| {
            let error = ty.decode(&claim, &BincodeFormat).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Decode);
        });
        assert!(peak < 2 << 20, "{} allocated {peak} bytes", ty.type_name());
    }
}

#[test]
fn elements_that_take_no_bytes_cannot_go_on_for_ever() {
    let claim = [&[253][..], &u64::MAX.to_le_bytes()].concat();
    let error = value_type::<Vec<()>>().decode(&claim, &BincodeFormat).unwrap_err();
    assert!(error.message().contains("more elements"), "{error}");
}

#[derive(
    Debug, Clone, PartialEq, Serialize, Deserialize, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
#[rkyv(
    serialize_bounds(__S: rkyv::ser::Writer, __S::Error: rkyv::rancor::Source),
    deserialize_bounds(__D::Error: rkyv::rancor::Source),
    bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source))
)]
struct Chain {
    #[rkyv(omit_bounds)]
    next: Option<Box<Chain>>,
}

fn chain(links: usize) -> Chain {
    (0..links).fold(Chain { next: None }, |chain, _| Chain { next: Some(Box::new(chain)) })
}

#[test]
fn values_nested_without_end_do_not_end_the_stack() {
    let ty = value_type::<Chain>();
    let ron = format!("{}None{}", "(next:Some(".repeat(100_000), "))".repeat(100_000));
    assert_eq!(ty.decode(ron.as_bytes(), &RonFormat).unwrap_err().kind(), ErrorKind::Decode);
    let error = ty.decode(&vec![1; 4 << 20], &BincodeFormat).unwrap_err();
    assert!(error.message().contains("nested too deeply"), "{error}");
    // Bincode wraps an error for each level, and prints what it wraps with escapes: 2^60 bytes if nobody stops it.
    let error = ty.decode(&[1; 60], &BincodeFormat).unwrap_err();
    assert!(format!("{error:?}").len() < 300, "{error:?}");

    // Deeper than may be read, and not deeper than can be written on a test's stack.
    let rkyv = RkyvFormat::new().register::<Chain>();
    let mut archive = Vec::new();
    ty.encode(&(Arc::new(chain(1000)) as Object), &rkyv, &mut archive).unwrap();
    assert_eq!(ty.decode(&archive, &rkyv).unwrap_err().kind(), ErrorKind::Decode);

    for format in [&BincodeFormat as &dyn Format, &RonFormat, &rkyv] {
        let mut bytes = Vec::new();
        ty.encode(&(Arc::new(chain(25)) as Object), format, &mut bytes).unwrap();
        assert_eq!(ty.decode(&bytes, format).unwrap().downcast_ref(), Some(&chain(25)), "{}", format.name());
    }
}
