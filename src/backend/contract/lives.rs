//! Expiry stamps, which are hints to a store: it may forget them, and never make them longer.

use super::Subject;
use super::subject::key;
use crate::value::{CacheValue, Raw};

/// An hour, in seconds: beyond the end of any case.
const HOUR: u64 = 3600;

/// No expiry means none.
pub async fn a_value_without_expiry_stays(subject: Subject) {
    subject.write(&key(1), "one").await;
    subject.backend.sweep(subject.ahead(100 * 365 * 24 * HOUR));
    let value = subject.value(&key(1)).await;
    assert_eq!(value, Some(CacheValue::new(Raw::from_static(b"one"), None, None)));
}

/// A value whose expiry lies ahead is served, also one that lies very far ahead.
pub async fn a_value_is_there_until_it_expires(subject: Subject) {
    for (id, ahead) in [(1, 60), (2, HOUR), (3, 1000 * 365 * 24 * HOUR)] {
        let value = CacheValue::new(Raw::from_static(b"alive"), Some(subject.ahead(ahead)), None);
        subject.write_value(&key(id), value).await;
    }
    for id in 1..=3 {
        assert_eq!(subject.read(&key(id)).await.as_deref(), Some(&b"alive"[..]), "value {id}");
    }
}

/// Staleness is the engine's matter.
pub async fn a_stale_value_is_still_there(subject: Subject) {
    let value = CacheValue::new(Raw::from_static(b"old"), Some(subject.ahead(HOUR)), Some(subject.ago(HOUR)));
    subject.write_value(&key(1), value).await;
    assert_eq!(subject.read(&key(1)).await.as_deref(), Some(&b"old"[..]));
}

/// The expiry that comes back is the one given, or none where the store keeps none.
pub async fn an_expiry_is_never_prolonged(subject: Subject) {
    let expire = subject.ahead(HOUR);
    subject.write_value(&key(1), CacheValue::new(Raw::from_static(b"one"), Some(expire), None)).await;
    let found = subject.value(&key(1)).await.and_then(|value| value.expire());
    assert!(found.is_none_or(|found| found <= expire), "{found:?} is later than {expire:?}");
}

/// An earlier value's expiry does not end its successor.
pub async fn a_rewrite_replaces_the_expiry(subject: Subject) {
    let expire = subject.ahead(HOUR);
    subject.write_value(&key(1), CacheValue::new(Raw::from_static(b"one"), Some(expire), None)).await;
    subject.write(&key(1), "for ever").await;
    subject.backend.sweep(subject.ahead(2 * HOUR));
    let value = subject.value(&key(1)).await;
    assert_eq!(value, Some(CacheValue::new(Raw::from_static(b"for ever"), None, None)));
}

/// Sweeping deletes what has expired and nothing else.
pub async fn a_sweep_spares_what_lives(subject: Subject) {
    let expire = Some(subject.ahead(HOUR));
    for id in 0..300 {
        subject.write_value(&key(id), CacheValue::new(Raw::from_static(b"alive"), expire, None)).await;
    }
    for _ in 0..4 {
        subject.backend.sweep(subject.ahead(0));
    }
    for id in 0..300 {
        assert!(subject.read(&key(id)).await.is_some(), "value {id} was swept");
    }
}
