//! Calls beside each other, and calls whose caller has gone.

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::Subject;
use super::subject::{key, noise};
use crate::value::{CacheValue, Raw};

const TASKS: u64 = 16;

impl Subject {
    /// Runs `work` for each task number, all at the same time.
    async fn at_once<F>(&self, work: impl Fn(Self, u64) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tasks = (0..TASKS).map(|task| self.runtime.spawn(work(self.clone(), task)));
        for task in join_all(tasks.collect::<Vec<_>>()).await {
            task.unwrap_or_else(|error| panic!("a task of the case: {error:?}"));
        }
    }
}

/// Each task finds what it wrote itself.
pub async fn concurrent_calls_for_different_keys_do_not_mix(subject: Subject) {
    let work = async |subject: Subject, task: u64| {
        for round in 0..10 {
            let (key, value) = (key(task * 100 + round), noise(task * 100 + round, 500));
            subject.write(&key, value.clone()).await;
            assert_eq!(subject.read(&key).await, Some(value));
            if round % 2 == 0 {
                subject.remove(&key).await;
                assert_eq!(subject.read(&key).await, None);
            }
        }
    };
    subject.at_once(work).await;
}

/// Values that race for a key do not blend.
pub async fn one_key_written_by_many_holds_one_of_their_values(subject: Subject) {
    let work = async |subject: Subject, task: u64| subject.write(&key(1), noise(task, 20_000)).await;
    subject.at_once(work).await;
    let found = subject.read(&key(1)).await;
    assert!((0..TASKS).any(|task| found == Some(noise(task, 20_000))), "a value that nobody wrote");
}

/// A read beside a write gives the value before or the value after.
pub async fn reads_beside_writes_see_whole_values(subject: Subject) {
    subject.write(&key(1), noise(0, 20_000)).await;
    let work = async |subject: Subject, task: u64| {
        if task == 0 {
            for round in 1..=10 {
                subject.write(&key(1), noise(round, 20_000)).await;
            }
            return;
        }
        for _ in 0..10 {
            let found = subject.read(&key(1)).await;
            assert!((0..=10).any(|round| found == Some(noise(round, 20_000))), "a value that nobody wrote");
        }
    };
    subject.at_once(work).await;
}

/// A reader that goes away mid-call harms nobody, however many do.
pub async fn a_dropped_read_leaves_the_store_working(subject: Subject) {
    subject.write(&key(1), "one").await;
    for _ in 0..100 {
        // Polled once at most, then dropped.
        let _ = subject.backend.read(&key(1)).now_or_never();
        drop(subject.backend.read_many(&[key(1), key(2)]));
    }
    assert_eq!(subject.read(&key(1)).await.as_deref(), Some(&b"one"[..]));
    subject.write(&key(1), "two").await;
    assert_eq!(subject.read(&key(1)).await.as_deref(), Some(&b"two"[..]));
}

/// A write whose caller goes away is applied, now or later, or is not: never by half, and no other key suffers.
pub async fn a_dropped_write_applies_whole_or_not_at_all(subject: Subject) {
    let (before, after) = (noise(1, 20_000), noise(2, 20_000));
    for id in 0..20 {
        subject.write(&key(id), before.clone()).await;
    }
    for id in 0..20 {
        let value = CacheValue::new(after.clone(), None, None);
        let _ = subject.backend.write(&key(id), value).now_or_never();
    }
    for id in 0..20 {
        let found = subject.read(&key(id)).await;
        assert!(found.as_ref() == Some(&before) || found.as_ref() == Some(&after), "value {id} is neither");
    }
    subject.write(&key("another"), Raw::from_static(b"fine")).await;
    assert_eq!(subject.read(&key("another")).await.as_deref(), Some(&b"fine"[..]));
}
