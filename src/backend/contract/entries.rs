//! Entries and ports: the forms in which the engine itself talks to a backend.

use std::sync::Arc;

use super::Subject;
use super::subject::{key, noise};
use crate::backend::Holds;
use crate::key::CacheKey;
use crate::value::{DeleteStatus, Entry, Meta, Object, Payload, Raw};

impl Subject {
    async fn entry(&self, key: &CacheKey) -> Option<Entry> {
        let mut answers = self.backend.read_entries(std::slice::from_ref(key)).await;
        assert_eq!(answers.len(), 1, "one key, one answer");
        answers.remove(0).unwrap_or_else(|error| panic!("reading the entry `{key}`: {error}"))
    }

    pub(super) async fn write_entry(&self, key: &CacheKey, entry: Entry) {
        let mut answers = self.backend.write_entries(vec![(key.clone(), entry)]).await;
        assert_eq!(answers.len(), 1, "one entry, one answer");
        answers.remove(0).unwrap_or_else(|error| panic!("writing the entry `{key}`: {error}"));
    }
}

fn bytes(entry: Option<Entry>) -> Option<Raw> {
    match entry?.payload {
        Payload::Bytes(raw) => Some(raw),
        Payload::Object(..) => panic!("bytes came back as an object"),
    }
}

/// Bytes written in one form are read in the other, by stores of objects too.
pub async fn entries_and_values_agree(subject: Subject) {
    let meta = Meta { stamp: subject.stamp(1), created: subject.ago(0), ..Meta::default() };
    let frame = noise(1, 1000);
    subject.write_entry(&key(1), Entry::new(Payload::Bytes(frame.clone()), meta)).await;
    assert_eq!(subject.read(&key(1)).await, Some(frame));
    subject.write(&key(1), "a value").await;
    assert_eq!(bytes(subject.entry(&key(1)).await).as_deref(), Some(&b"a value"[..]));
    subject.remove(&key(1)).await;
    assert!(subject.entry(&key(1)).await.is_none());
    assert!(subject.entry(&key(2)).await.is_none());
}

/// `retain` is what the store goes by: the engine serves expired entries when an origin fails.
pub async fn an_entry_outlives_its_expiry_for_as_long_as_it_is_retained(subject: Subject) {
    let meta = Meta {
        stamp: subject.stamp(1),
        created: subject.ago(3600),
        expire: Some(subject.ago(60)),
        retain: Some(subject.ahead(3600)),
        ..Meta::default()
    };
    subject.write_entry(&key(1), Entry::new(Payload::Bytes(noise(1, 100)), meta)).await;
    subject.backend.sweep(subject.ahead(0));
    assert_eq!(bytes(subject.entry(&key(1)).await), Some(noise(1, 100)));
}

/// A store that says it holds objects gives back the very object, with its stamps.
pub async fn a_store_of_objects_shares_them(subject: Subject) {
    if subject.backend.holds() == Holds::Bytes {
        return;
    }
    let object: Object = Arc::new("an object".to_owned());
    let meta = Meta {
        stamp: subject.stamp(1),
        created: subject.ago(1),
        expire: Some(subject.ahead(3600)),
        ..Meta::default()
    };
    subject.write_entry(&key(1), Entry::new(Payload::Object(Arc::clone(&object), 100), meta)).await;
    let found = subject.entry(&key(1)).await;
    let Some(Entry { payload: Payload::Object(found, _), meta: kept, .. }) = found else {
        panic!("the object came back as {found:?}");
    };
    assert!(Arc::ptr_eq(&found, &object), "another object came back");
    assert_eq!(kept, meta);
    assert_eq!(subject.remove(&key(1)).await, DeleteStatus::Deleted(1));
    assert!(subject.entry(&key(1)).await.is_none());
}

/// A port, where there is one, is another view of the same entries. Its count may lag.
pub async fn the_port_and_the_entries_agree(subject: Subject) {
    let Some(port) = subject.backend.port() else { return };
    let (first, second) = (key(1), key(2));
    assert!(port.is_empty() && port.get(&first.probe()).is_none() && !port.contains(&first.probe()));

    subject.write(&first, "through the store").await;
    assert!(port.contains(&first.probe()));
    assert_eq!(bytes(port.get(&first.probe())).as_deref(), Some(&b"through the store"[..]));

    let meta = Meta { stamp: subject.stamp(1), ..Meta::default() };
    port.put(second.clone(), Entry::new(Payload::Bytes(Raw::from_static(b"through the port")), meta));
    assert_eq!(subject.read(&second).await.as_deref(), Some(&b"through the port"[..]));

    assert_eq!(port.remove(&first), DeleteStatus::Deleted(1));
    assert_eq!(port.remove(&first), DeleteStatus::Missing);
    assert_eq!(subject.read(&first).await, None);
    subject.remove(&second).await;
    assert!(port.get(&second.probe()).is_none() && !port.contains(&second.probe()));
}
