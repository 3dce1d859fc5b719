//! The store as a whole: what it says of itself, opening, flushing, reopening.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Subject;
use super::subject::{key, noise};
use crate::backend::CacheBackend;
use crate::value::CacheValue;

/// Name, format, compressor and what it holds do not change: the engine asks once.
pub async fn it_says_the_same_of_itself_every_time(subject: Subject) {
    let backend = Arc::clone(&subject.backend);
    let say = || {
        let (format, compressor) = (backend.value_format(), backend.compressor());
        (
            (backend.label(), backend.holds(), backend.residual(), *backend.key_format()),
            (format.id(), format.name(), format.alignment()),
            (compressor.id(), compressor.name(), compressor.dictionary()),
            backend.port().is_some(),
        )
    };
    let before = say();
    assert!(!before.0.0.as_str().is_empty(), "the label is empty");
    backend.validate().unwrap_or_else(|error| panic!("a store that works says that it cannot: {error}"));
    subject.write(&key(1), "one").await;
    assert_eq!(say(), before);
    assert_eq!(backend.running_jobs(), 0, "nothing is being called");
    let usage = backend.usage();
    assert!(usage.evictions.unwrap_or(0) == 0, "one entry was one too many: {usage:?}");
}

/// The format and the compressor that it names work on values: what they write they read.
pub async fn it_reads_the_values_that_it_encodes(subject: Subject) {
    type Value = BTreeMap<String, Vec<Option<i64>>>;
    let value: Value =
        (0..50).map(|id| (format!("key {id}"), vec![None, Some(-id), Some(i64::MAX)])).collect();
    let name = subject.backend.value_format().name();
    let set = subject.backend.set::<Value>(&key(1), CacheValue::new(value.clone(), None, None)).await;
    set.unwrap_or_else(|error| panic!("in format `{name}`: {error}"));
    let found = subject.backend.get::<Value>(&key(1)).await;
    let found = found.unwrap_or_else(|error| panic!("in format `{name}`: {error}"));
    assert_eq!(found.map(|found| (**found.data()).clone()), Some(value));
}

/// `open` is called before each incarnation of the tier's actor.
pub async fn opening_again_changes_nothing(subject: Subject) {
    subject.write(&key(1), "one").await;
    subject.open().await;
    subject.open().await;
    assert_eq!(subject.read(&key(1)).await.as_deref(), Some(&b"one"[..]));
}

/// `reopen` is called before the breaker's probe, also where nothing is broken.
pub async fn reopening_leaves_it_serving(subject: Subject) {
    subject.write(&key(1), "one").await;
    for round in 0..3 {
        subject.backend.reopen().await.unwrap_or_else(|error| panic!("reopening: {error}"));
        subject.write(&key(2), round.to_string()).await;
        assert_eq!(subject.read(&key(2)).await.as_deref(), Some(round.to_string().as_bytes()));
    }
}

/// Flushing makes durable and changes nothing else, with or without something to flush.
pub async fn a_flush_keeps_everything(subject: Subject) {
    let flush = || async {
        subject.backend.flush().await.unwrap_or_else(|error| panic!("flushing: {error}"));
    };
    flush().await;
    for id in 0..50 {
        subject.write(&key(id), noise(id, 1000)).await;
    }
    subject.remove(&key(7)).await;
    flush().await;
    for id in 0..50 {
        assert_eq!(subject.read(&key(id)).await, (id != 7).then(|| noise(id, 1000)));
    }
}
