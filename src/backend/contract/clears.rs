//! Clearing, for stores that offer it. One that does not says [`ErrorKind::Unsupported`] and keeps everything.

use std::sync::Arc;

use super::Subject;
use super::subject::{key_in, noise};
use crate::backend::Scope;
use crate::error::ErrorKind;
use crate::value::{Entry, Meta, Payload, Stamp};

impl Subject {
    /// Clears; false if the store does not offer it.
    async fn clear(&self, scope: &Scope, stamp: Stamp) -> bool {
        match self.backend.clear(scope, stamp).await {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::Unsupported => false,
            Err(error) => panic!("clearing {scope:?}: {error}"),
        }
    }

    /// Writes a stamped and an unstamped entry in `prefix`.
    async fn fill(&self, prefix: &str, stamp: Stamp) {
        let meta = Meta { stamp, created: stamp.wall(), ..Meta::default() };
        self.write_entry(&key_in(prefix, "stamped"), Entry::new(Payload::Bytes(noise(1, 100)), meta)).await;
        self.write(&key_in(prefix, "plain"), noise(2, 100)).await;
    }

    /// How many of the two are there.
    async fn left(&self, prefix: &str) -> usize {
        let mut left = 0;
        for id in ["stamped", "plain"] {
            left += usize::from(self.read(&key_in(prefix, id)).await.is_some());
        }
        left
    }
}

fn prefix(prefix: &str) -> Scope {
    Scope::Prefix(Arc::from(prefix))
}

/// What was written at or before the clear is absent, written with a stamp or without.
pub async fn a_clear_takes_what_was_written_before(subject: Subject) {
    subject.fill("a", subject.stamp(1)).await;
    subject.fill("b", subject.stamp(2)).await;
    let cleared = subject.clear(&Scope::All, subject.stamp(2)).await;
    let expected = if cleared { 0 } else { 2 };
    assert_eq!(subject.left("a").await, expected, "cleared: {cleared}");
    assert_eq!(subject.left("b").await, expected, "cleared: {cleared}");
}

/// A prefix is a whole one: `user` does not cover `users`.
pub async fn a_clear_spares_other_prefixes(subject: Subject) {
    for prefix in ["user", "users", "use", "order"] {
        subject.fill(prefix, subject.stamp(1)).await;
    }
    let cleared = subject.clear(&prefix("user"), subject.stamp(2)).await;
    assert_eq!(subject.left("user").await, if cleared { 0 } else { 2 });
    for spared in ["users", "use", "order"] {
        assert_eq!(subject.left(spared).await, 2, "of `{spared}`");
    }
}

/// Cleared keys can be written again.
pub async fn what_is_written_after_a_clear_stays(subject: Subject) {
    subject.fill("a", subject.stamp(1)).await;
    subject.clear(&prefix("a"), subject.stamp(2)).await;
    subject.clear(&Scope::All, subject.stamp(3)).await;
    subject.fill("a", subject.stamp(4)).await;
    assert_eq!(subject.left("a").await, 2);
}

/// A clear is not forgotten when the store is replaced.
pub async fn a_clear_is_remembered_when_the_store_is_reopened(subject: Subject) {
    subject.fill("a", subject.stamp(1)).await;
    if !subject.clear(&prefix("a"), subject.stamp(2)).await {
        return;
    }
    subject.backend.flush().await.unwrap_or_else(|error| panic!("flushing: {error}"));
    subject.backend.reopen().await.unwrap_or_else(|error| panic!("reopening: {error}"));
    assert_eq!(subject.left("a").await, 0);
}
