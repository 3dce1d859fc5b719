//! An entry as a memory tier holds it: as small as will do, since there are millions.

use std::sync::Arc;

use super::expiry::mark;
use crate::value::{Entry, Meta, Object, Payload, Stamp, Timestamp};

/// A decoded value and its stamps in 48 bytes, three of a cache line's quarters; what is rare is kept apart, in [`Odd`].
#[derive(Clone)]
pub(super) struct Slot {
    /// The value, or an [`Odd`].
    object: Object,
    time: u64,
    /// Also when it may be deleted.
    expire: Option<Timestamp>,
    node: u32,
    weight: u32,
    /// By how many ms the value is older than its stamp, or `ODD`.
    age: u32,
    /// The last bits of the number of the put that stored it.
    put: u16,
}

const _: () = assert!(size_of::<Slot>() == 48);

const ODD: u32 = u32::MAX;

/// What does not fit: bytes, values with further stamps, values whose stamp is older than they are.
struct Odd {
    payload: Payload,
    created: Timestamp,
    stale: Option<Timestamp>,
    retain: Option<Timestamp>,
}

impl Slot {
    pub(super) fn new(Entry { payload, meta, .. }: Entry, put: u16) -> Self {
        let Meta { stamp, created, stale, expire, retain } = meta;
        let weight = u32::try_from(payload.weight()).unwrap_or(u32::MAX);
        let age = stamp.wall().as_millis().checked_sub(created.as_millis());
        let age = age.and_then(|age| u32::try_from(age).ok()).filter(|_| stale.is_none() && retain.is_none());
        let (object, age): (Object, _) = match (payload, age.unwrap_or(ODD)) {
            (Payload::Object(object, _), age) if age != ODD => (object, age),
            (payload, _) => (Arc::new(Odd { payload, created, stale, retain }), ODD),
        };
        Self { object, time: stamp.time, expire, node: stamp.node, weight, age, put }
    }

    #[inline]
    pub(super) fn into_entry(self) -> Entry {
        let stamp = self.stamp();
        if self.age == ODD {
            return self.unpack();
        }
        let created = Timestamp::from_millis(stamp.wall().as_millis() - u64::from(self.age));
        let meta = Meta { stamp, created, stale: None, expire: self.expire, retain: None };
        Entry::new(Payload::Object(self.object, self.weight), meta)
    }

    #[cold]
    fn unpack(self) -> Entry {
        let stamp = self.stamp();
        let Some(odd) = self.odd() else { unreachable!("only an `Odd` has this age") };
        let meta =
            Meta { stamp, created: odd.created, stale: odd.stale, expire: self.expire, retain: odd.retain };
        Entry::new(odd.payload.clone(), meta)
    }

    fn odd(&self) -> Option<&Odd> {
        if self.age == ODD { (*self.object).downcast_ref() } else { None }
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp { time: self.time, node: self.node }
    }

    pub(super) fn weight(&self) -> u32 {
        self.weight
    }

    /// Its mark in the expiry index; `None`: it never expires.
    pub(super) fn mark(&self) -> Option<u64> {
        let until = self.odd().and_then(|odd| odd.retain).or(self.expire);
        until.map(|at| mark(at, self.put))
    }
}
