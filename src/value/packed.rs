//! An entry as an in-process store holds it: as small as will do, since there are millions.

use std::fmt;
use std::sync::Arc;

use super::{Entry, Meta, Object, Payload, Stamp, Timestamp};

/// An [`Entry`] in 48 bytes, three quarters of a cache line; what is rare of it is kept apart, on the heap.
///
/// What a [`Port`](crate::backend::Port) holds and hands out. A clone shares the value.
#[derive(Clone)]
pub struct Packed {
    /// The value, or an [`Odd`].
    object: Object,
    stamps: Stamps,
}

const _: () = assert!(size_of::<Packed>() == 48 && size_of::<Option<Packed>>() == 48);

impl Packed {
    /// The entry in full.
    pub fn unpack(self) -> Entry {
        match self.odd() {
            None => {
                let meta = self.stamps.meta(None);
                Entry::new(Payload::Object(self.object, self.stamps.weight), meta)
            }
            Some(odd) => Entry::new(odd.payload.clone(), self.stamps.meta(Some(&odd.rare))),
        }
    }

    /// Which write made it.
    #[inline]
    pub fn stamp(&self) -> Stamp {
        self.stamps.stamp()
    }

    /// From when on it is no longer fresh; `None`: never.
    #[inline]
    pub fn expire(&self) -> Option<Timestamp> {
        self.stamps.expire
    }

    /// When it may be deleted; `None`: never.
    pub fn kept_until(&self) -> Option<Timestamp> {
        self.odd().and_then(|odd| odd.rare.retain).or(self.stamps.expire)
    }

    /// What the payload weighs, in bytes.
    pub fn weight(&self) -> u32 {
        self.stamps.weight
    }

    /// What the store has noted with it.
    pub(crate) fn tag(&self) -> u16 {
        self.stamps.tag
    }

    pub(crate) fn tagged(mut self, tag: u16) -> Self {
        self.stamps.tag = tag;
        self
    }

    /// The decoded value and its stamps; `None` if it is held as bytes.
    #[inline]
    pub(crate) fn into_object(self) -> Option<(Object, Stamps, Option<Arc<Rare>>)> {
        if self.stamps.age == ODD {
            return self.odd_object();
        }
        Some((self.object, self.stamps, None))
    }

    #[cold]
    fn odd_object(self) -> Option<(Object, Stamps, Option<Arc<Rare>>)> {
        let odd = self.odd()?;
        let Payload::Object(object, _) = &odd.payload else { return None };
        Some((Arc::clone(object), self.stamps, Some(Arc::clone(&odd.rare))))
    }

    fn odd(&self) -> Option<&Odd> {
        if self.stamps.age == ODD { (*self.object).downcast_ref() } else { None }
    }
}

impl From<Entry> for Packed {
    fn from(Entry { payload, meta, .. }: Entry) -> Self {
        let (stamps, rare) = Stamps::pack(&meta);
        let stamps = Stamps { weight: u32::try_from(payload.weight()).unwrap_or(u32::MAX), ..stamps };
        match (payload, rare) {
            (Payload::Object(object, _), None) => Self { object, stamps },
            (payload, rare) => {
                let rare = Arc::new(rare.unwrap_or_else(|| Rare::of(&meta)));
                Self { object: Arc::new(Odd { payload, rare }), stamps: Stamps { age: ODD, ..stamps } }
            }
        }
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed")
            .field("stamp", &self.stamp())
            .field("expire", &self.expire())
            .field("weight", &self.weight())
            .finish_non_exhaustive()
    }
}

/// What most entries have of stamps. Copied as a block: to take it apart and put it together again on each hit would
/// cost more than the rest of it.
#[derive(Clone, Copy)]
pub(crate) struct Stamps {
    time: u64,
    pub(crate) expire: Option<Timestamp>,
    node: u32,
    weight: u32,
    /// By how many ms the value is older than its stamp, or `ODD`.
    age: u32,
    tag: u16,
}

/// There is a [`Rare`].
const ODD: u32 = u32::MAX;

impl Stamps {
    /// What does not fit is returned beside it.
    pub(crate) fn pack(meta: &Meta) -> (Self, Option<Rare>) {
        let Meta { stamp, created, stale, expire, retain } = *meta;
        let age = stamp.wall().as_millis().checked_sub(created.as_millis());
        let age = age.and_then(|age| u32::try_from(age).ok()).filter(|_| stale.is_none() && retain.is_none());
        let age = age.unwrap_or(ODD);
        let stamps = Self { time: stamp.time, expire, node: stamp.node, weight: 0, age, tag: 0 };
        (stamps, (age == ODD).then(|| Rare::of(meta)))
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { time: self.time, node: self.node }
    }

    /// Given what was packed beside it.
    pub(crate) fn meta(&self, rare: Option<&Rare>) -> Meta {
        let stamp = self.stamp();
        match rare {
            Some(&Rare { created, stale, retain }) => {
                Meta { stamp, created, stale, expire: self.expire, retain }
            }
            None => {
                let created = stamp.wall().as_millis().saturating_sub(u64::from(self.age));
                let created = Timestamp::from_millis(created);
                Meta { stamp, created, stale: None, expire: self.expire, retain: None }
            }
        }
    }
}

/// What does not fit: further stamps, and values that are newer than their stamp or much older.
#[derive(Debug)]
pub(crate) struct Rare {
    created: Timestamp,
    stale: Option<Timestamp>,
    retain: Option<Timestamp>,
}

impl Rare {
    fn of(meta: &Meta) -> Self {
        Self { created: meta.created, stale: meta.stale, retain: meta.retain }
    }
}

/// A value with such stamps, or bytes.
struct Odd {
    payload: Payload,
    /// Shared with hits, so that they allocate nothing either.
    rare: Arc<Rare>,
}
