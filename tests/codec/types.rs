//! Value types: what is measured, and what does not read back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tierkeep::codec::{Format, JsonFormat, PostcardFormat, value_type};
use tierkeep::{ErrorKind, Object, Result};

use super::support::user;

fn check<T: Serialize + DeserializeOwned + Send + Sync + 'static>(
    value: T,
    format: &dyn Format,
) -> Result<()> {
    let value: Object = Arc::new(value);
    value_type::<T>().check(&value, format)
}

#[track_caller]
fn does_not_read_back<T: Serialize + DeserializeOwned + Send + Sync + 'static>(
    value: T,
    format: &dyn Format,
) {
    let error = check(value, format).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode);
    assert!(error.message().contains(format.name()), "{error}");
    assert!(error.message().contains("JsonFormat"), "{error}");
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Text(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Skipping {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<u8>,
    second: u8,
    third: Vec<u8>,
}

#[test]
fn ordinary_types_pass_the_check_in_every_format() {
    for format in [&PostcardFormat as &dyn Format, &JsonFormat] {
        check(user(1), format).unwrap();
        check((1_u8, -5_i64, 'x', Some("text".to_owned()), [0.1_f64, 1e-300]), format).unwrap();
    }
}

#[test]
fn hash_maps_pass_the_check_whatever_order_they_are_written_in() {
    let map: HashMap<String, HashSet<u32>> =
        (0..200).map(|i| (i.to_string(), (0..i % 7).map(|n| n * 1000).collect())).collect();
    check(map.clone(), &PostcardFormat).unwrap();
    check(map, &JsonFormat).unwrap();
}

#[test]
fn every_float_reads_back_from_json() {
    // serde_json's faster parser is off by one bit for these, and for one in eight of all.
    check(31.245_270_191_439_438_f64, &JsonFormat).unwrap();
    check(94.851_797_352_724_57_f64, &JsonFormat).unwrap();
}

#[test]
fn types_that_need_a_self_describing_format_fail_the_check_in_postcard_only() {
    does_not_read_back(Untagged::Number(7), &PostcardFormat);
    check(Untagged::Number(7), &JsonFormat).unwrap();
    check(Untagged::Text("x".into()), &JsonFormat).unwrap();
}

#[test]
fn a_value_that_reads_back_as_another_one_fails_the_check() {
    // These bytes decode without an error: to `{ first: None, second: 1, third: [] }`.
    does_not_read_back(Skipping { first: None, second: 0, third: vec![0] }, &PostcardFormat);
    check(Skipping { first: None, second: 0, third: vec![0] }, &JsonFormat).unwrap();
}

#[test]
fn measuring_ends_at_the_limit_and_allocates_nothing() {
    let ty = value_type::<Vec<u32>>();
    let value: Object = Arc::new(vec![0_u32; 1000]);
    let used = allocation_counter::measure(|| {
        assert!(!ty.exceeds(&value, 1002)); // two bytes of length
        assert!(ty.exceeds(&value, 1001));
        assert!(ty.exceeds(&value, 0));
    });
    assert_eq!(used.count_total, 0);
}

#[test]
fn what_postcard_cannot_express_counts_as_large() {
    #[derive(Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        rest: HashMap<String, u8>,
    }
    let value: Object = Arc::new(Flat { rest: HashMap::new() });
    assert!(value_type::<Flat>().exceeds(&value, usize::MAX));
    check(Flat { rest: HashMap::from([("a".into(), 1)]) }, &JsonFormat).unwrap();
}

#[test]
fn a_value_of_another_type_is_told() {
    let value: Object = Arc::new(7_u8);
    let error = value_type::<String>().encode(&value, &PostcardFormat, &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch);
}
