//! Stores that compare stamps: what is older never replaces what is newer, whichever reaches them last. Backends that do
//! not pass.

use super::Subject;
use super::subject::key;
use crate::backend::BackendResult;
use crate::codec::Encoded;
use crate::error::{Error, ErrorKind};
use crate::key::CacheKey;
use crate::value::{DeleteStatus, Entry, Meta, Payload, Raw, Stamp, Timestamp};

/// The forms in which entries come: as the engine's frames, and as bytes that carry no stamp themselves.
const FORMS: [fn(&CacheKey, &Meta) -> Raw; 2] = [frame, bare];

fn frame(key: &CacheKey, meta: &Meta) -> Raw {
    Encoded::plain(Encoded::buffer_in(Vec::new(), 0), 0, 1).seal(key, meta)
}

fn bare(_: &CacheKey, meta: &Meta) -> Raw {
    format!("bytes without a stamp of their own, written at {:?}", meta.stamp).into()
}

/// One key of a subject that compares, and a form of its entries.
struct Keyed<'a> {
    subject: &'a Subject,
    key: CacheKey,
    form: fn(&CacheKey, &Meta) -> Raw,
}

impl Keyed<'_> {
    fn entry(&self, stamp: Stamp, retain: Option<Timestamp>) -> Entry {
        let meta = self.meta(stamp, retain);
        Entry::new(Payload::Bytes((self.form)(&self.key, &meta)), meta)
    }

    async fn write(&self, stamp: Stamp) -> BackendResult<()> {
        self.write_until(stamp, None).await
    }

    async fn write_until(&self, stamp: Stamp, retain: Option<Timestamp>) -> BackendResult<()> {
        let entries = vec![(self.key.clone(), self.entry(stamp, retain))];
        one(self.subject.backend.write_entries(entries).await)
    }

    async fn remove(&self, stamp: Stamp) -> BackendResult<DeleteStatus> {
        one(self.subject.backend.remove_entries(vec![(self.key.clone(), stamp)]).await)
    }

    async fn holds(&self, stamp: Stamp) {
        let held = self.subject.read(&self.key).await;
        assert_eq!(held, Some(self.bytes(stamp)), "what was stamped {stamp:?}");
    }

    async fn lacks(&self, stamp: Stamp) {
        let held = self.subject.read(&self.key).await;
        assert_ne!(held, Some(self.bytes(stamp)), "what was stamped {stamp:?}");
    }

    fn bytes(&self, stamp: Stamp) -> Raw {
        let meta = self.meta(stamp, None);
        (self.form)(&self.key, &meta)
    }

    fn meta(&self, stamp: Stamp, retain: Option<Timestamp>) -> Meta {
        let created = Timestamp::from_millis(stamp.time >> 16);
        Meta { stamp, created, retain, ..Meta::default() }
    }
}

fn one<T>(mut answers: Vec<BackendResult<T>>) -> BackendResult<T> {
    assert_eq!(answers.len(), 1, "one change, one answer");
    answers.remove(0)
}

/// A key for each form, if the backend compares.
fn keys(subject: &Subject) -> impl Iterator<Item = Keyed<'_>> {
    let forms = FORMS.into_iter().enumerate().filter(|_| subject.backend.compares());
    forms.map(|(form_id, form)| Keyed { subject, key: key(form_id), form })
}

/// A stamp of so many seconds ago: later ones have other milliseconds, unlike those of [`Subject::stamp`].
fn ago(subject: &Subject, seconds: u64) -> Stamp {
    Stamp { time: subject.ago(seconds).as_millis() << 16, node: 1 }
}

/// Pairs of an older and a newer stamp: seconds apart, within a millisecond, and of two nodes at the same time.
fn pairs(subject: &Subject) -> [(Stamp, Stamp); 3] {
    let (first, then) = (subject.stamp(1), subject.stamp(2));
    [(ago(subject, 20), ago(subject, 10)), (first, then), (then, Stamp { node: 2, ..then })]
}

#[track_caller]
fn refused<T>(result: BackendResult<T>, by: Stamp) {
    let Err(error) = result else { panic!("the older change was applied") };
    assert_eq!(error.kind(), ErrorKind::Superseded, "{error}");
    // It may not know the stamp.
    assert!(error.superseded_by().is_none_or(|stamp| stamp == by), "{error:?}");
}

#[track_caller]
fn applied<T>(result: BackendResult<T>) -> T {
    result.unwrap_or_else(|error: Error| panic!("the change was refused: {error}"))
}

/// The newer of two entries is held, in whichever order they come.
pub async fn an_older_entry_is_refused(subject: Subject) {
    for keyed in keys(&subject) {
        for (older, newer) in pairs(&subject) {
            applied(keyed.write(older).await);
            keyed.holds(older).await;
            applied(keyed.write(newer).await);
            keyed.holds(newer).await;
            refused(keyed.write(older).await, newer);
            keyed.holds(newer).await;
        }
    }
}

/// Equal stamps are one mutation, sent again.
pub async fn an_equal_stamp_is_applied(subject: Subject) {
    for keyed in keys(&subject) {
        let stamp = subject.stamp(1);
        applied(keyed.write(stamp).await);
        applied(keyed.write(stamp).await);
        keyed.holds(stamp).await;
        applied(keyed.remove(stamp).await);
        applied(keyed.remove(stamp).await);
        assert_eq!(subject.read(&keyed.key).await, None);
    }
}

/// What was removed stays away from an older entry, and not from a newer one.
pub async fn a_removal_keeps_older_entries_out(subject: Subject) {
    for keyed in keys(&subject) {
        for (older, newer) in pairs(&subject) {
            applied(keyed.remove(newer).await);
            refused(keyed.write(older).await, newer);
            assert_eq!(subject.read(&keyed.key).await, None);
        }
        let last = Stamp { time: subject.stamp(3).time, node: 1 };
        applied(keyed.write(last).await);
        keyed.holds(last).await;
        assert_eq!(applied(keyed.remove(last).await), DeleteStatus::Deleted(1));
    }
}

/// A removal spares what is newer, and one without a stamp whatever has one.
pub async fn a_removal_spares_what_is_newer(subject: Subject) {
    for keyed in keys(&subject) {
        for (older, newer) in pairs(&subject) {
            applied(keyed.write(newer).await);
            refused(keyed.remove(older).await, newer);
            refused(keyed.remove(Stamp::ZERO).await, newer);
            keyed.holds(newer).await;
        }
    }
}

/// The stamp of what is over when it is written, and may not be held at all, is remembered all the same.
pub async fn the_stamp_of_what_has_expired_is_remembered(subject: Subject) {
    for keyed in keys(&subject) {
        for (older, newer) in pairs(&subject) {
            applied(keyed.write(older).await);
            applied(keyed.write_until(newer, Some(subject.ago(1))).await);
            keyed.lacks(older).await;
            refused(keyed.write(older).await, newer);
            keyed.lacks(older).await;
        }
    }
}

/// Each key of a batch is decided for itself: some absent, some held in an older form, some in a newer one, some removed.
pub async fn a_batch_is_decided_key_by_key(subject: Subject) {
    if !subject.backend.compares() {
        return;
    }
    let (older, now, newer) = (ago(&subject, 20), ago(&subject, 10), subject.stamp(1));
    let keyed = |n: usize| Keyed { subject: &subject, key: key(format!("b{n}")), form: FORMS[n / 4 % 2] };
    let lives = [None, Some(subject.ahead(3600)), Some(subject.ahead(1))];
    let meet = |n: usize| [None, Some(older), Some(newer), Some(newer)][n % 4];
    for n in 0..96 {
        match meet(n) {
            Some(stamp) if n % 4 == 3 => drop(applied(keyed(n).remove(stamp).await)),
            Some(stamp) => applied(keyed(n).write(stamp).await),
            None => {}
        }
    }
    let batch = (0..96).map(|n| (keyed(n).key, keyed(n).entry(now, lives[n % 3])));
    let answers = subject.backend.write_entries(batch.collect()).await;
    assert_eq!(answers.len(), 96, "as many answers as entries");
    for (n, answer) in answers.into_iter().enumerate() {
        match n % 4 {
            0 | 1 => applied(answer),
            _ => refused(answer, newer),
        }
        match n % 4 {
            2 => keyed(n).holds(newer).await,
            3 => assert_eq!(subject.read(&keyed(n).key).await, None),
            _ => {
                let Payload::Bytes(expected) = keyed(n).entry(now, lives[n % 3]).payload else { continue };
                // One that lives for a second may be over.
                let soon = n % 3 == 2;
                let held = subject.read(&keyed(n).key).await;
                assert!(held.as_ref() == Some(&expected) || (soon && held.is_none()), "{n}: {held:?}");
            }
        }
    }
    for n in (0..96).filter(|n| n % 4 < 2) {
        refused(keyed(n).write(older).await, now);
    }
}
