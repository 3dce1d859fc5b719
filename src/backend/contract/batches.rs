//! Several keys in one call.

use super::Subject;
use super::subject::key;
use crate::error::Result;
use crate::value::{CacheValue, DeleteStatus, Raw};

fn all<T>(answers: Vec<Result<T>>) -> Vec<T> {
    answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(|error| panic!("a call in a batch: {error}")))
        .collect()
}

fn plain(value: Option<CacheValue<Raw>>) -> Option<Raw> {
    value.map(CacheValue::into_inner)
}

fn value(id: usize) -> CacheValue<Raw> {
    CacheValue::new(id.to_string().into(), None, None)
}

/// One answer for each key, in the order asked, the absent among the present.
pub async fn answers_come_in_the_order_of_the_keys(subject: Subject) {
    let keys: Vec<_> = (0..300).map(|id| key(id * 7919 % 300)).collect();
    let entries = keys
        .iter()
        .enumerate()
        .filter(|(id, _)| !id.is_multiple_of(3))
        .map(|(id, key)| (key.clone(), value(id)));
    assert_eq!(all(subject.backend.write_many(entries.collect()).await).len(), 200);

    let read = all(subject.backend.read_many(&keys).await);
    let expected: Vec<_> =
        (0..300_usize).map(|id| (!id.is_multiple_of(3)).then(|| Raw::from(id.to_string()))).collect();
    assert_eq!(read.into_iter().map(plain).collect::<Vec<_>>(), expected);

    let removed = all(subject.backend.remove_many(&keys).await);
    let status =
        |id: usize| if id.is_multiple_of(3) { DeleteStatus::Missing } else { DeleteStatus::Deleted(1) };
    assert_eq!(removed, (0..300).map(status).collect::<Vec<_>>());
    assert!(all(subject.backend.read_many(&keys).await).iter().all(Option::is_none), "something was left");
}

/// A key may stand in a batch of reads more than once.
pub async fn a_key_asked_for_twice_is_answered_twice(subject: Subject) {
    subject.write(&key(1), "one").await;
    let read = all(subject.backend.read_many(&[key(1), key(2), key(1)]).await);
    let one = Some(Raw::from_static(b"one"));
    assert_eq!(read.into_iter().map(plain).collect::<Vec<_>>(), [one.clone(), None, one]);
}

/// Nothing asked, nothing answered.
pub async fn an_empty_batch_has_no_answers(subject: Subject) {
    assert!(subject.backend.read_many(&[]).await.is_empty());
    assert!(subject.backend.write_many(Vec::new()).await.is_empty());
    assert!(subject.backend.remove_many(&[]).await.is_empty());
    assert!(subject.backend.read_entries(&[]).await.is_empty());
    assert!(subject.backend.write_entries(Vec::new()).await.is_empty());
}

/// What a batch writes a single call reads and removes, and the other way round.
pub async fn batches_and_single_calls_agree(subject: Subject) {
    let keys = [key(1), key(2)];
    all(subject.backend.write_many(keys.iter().cloned().zip([value(1), value(2)]).collect()).await);
    assert_eq!(subject.read(&key(2)).await.as_deref(), Some(&b"2"[..]));
    assert_eq!(subject.remove(&key(1)).await, DeleteStatus::Deleted(1));
    subject.write(&key(2), "two").await;
    let read = all(subject.backend.read_many(&keys).await);
    assert_eq!(read.into_iter().map(plain).collect::<Vec<_>>(), [None, Some(Raw::from_static(b"two"))]);
    all(subject.backend.remove_many(&keys).await);
    assert_eq!(subject.read(&key(2)).await, None);
}
