//! Values: what an entry holds, when it was written, and how long it lives.

mod packed;

pub use packed::Packed;
pub(crate) use packed::{Rare, Stamps};

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Raw bytes, as backends store them.
pub type Raw = bytes::Bytes;

/// A point of wall-clock time, in whole milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(from = "u64", into = "u64")]
// One more than the milliseconds, so that an `Option` of it takes no more room: every hit carries some of them.
pub struct Timestamp(NonZeroU64);

impl Timestamp {
    /// The latest representable time.
    pub const MAX: Self = Self(NonZeroU64::MAX);

    /// From milliseconds since the Unix epoch. The last of all, `u64::MAX`, is taken for [`MAX`](Self::MAX).
    pub const fn from_millis(millis: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(millis))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0.get() - 1
    }

    /// Later by `duration`, rounded up to the ms; saturates.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let millis = duration.as_nanos().div_ceil(1_000_000);
        Self(self.0.saturating_add(u64::try_from(millis).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to this; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Default for Timestamp {
    /// The Unix epoch.
    fn default() -> Self {
        Self::from_millis(0)
    }
}

impl From<u64> for Timestamp {
    fn from(millis: u64) -> Self {
        Self::from_millis(millis)
    }
}

impl From<Timestamp> for u64 {
    fn from(at: Timestamp) -> Self {
        at.as_millis()
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timestamp").field(&self.as_millis()).finish()
    }
}

/// When a write happened, in the order in which this process and others that it has heard of wrote.
///
/// A hybrid logical clock (Kulkarni et al., 2014): `time` is wall-clock milliseconds in the upper 48 bits and a
/// counter in the lower 16, so it grows with every write even when the wall clock stands still or steps back.
/// `node` tells apart processes that drew the same time.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
pub struct Stamp {
    /// Wall ms << 16 | counter.
    pub time: u64,
    /// The writing process.
    pub node: u32,
}

impl Stamp {
    /// Before every write.
    pub const ZERO: Self = Self { time: 0, node: 0 };

    /// The wall-clock part.
    pub const fn wall(self) -> Timestamp {
        Timestamp::from_millis(self.time >> 16)
    }
}

/// When an entry was written and how long it lives. Travels with the value through every tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// Which write made it.
    pub stamp: Stamp,
    /// When its value was made.
    pub created: Timestamp,
    /// From when on it is served but wants a refresh; `None`: never.
    pub stale: Option<Timestamp>,
    /// From when on it is no longer fresh; `None`: never.
    pub expire: Option<Timestamp>,
    /// Until when the bytes are kept after `expire`; `None`: as `expire`.
    pub retain: Option<Timestamp>,
}

impl Meta {
    /// Whether the logical life is over at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expire.is_some_and(|at| at <= now)
    }

    /// When the bytes may be deleted: `retain`, else `expire`; `None`: never.
    pub fn kept_until(&self) -> Option<Timestamp> {
        self.retain.or(self.expire)
    }

    /// How it stands at `now`.
    pub fn freshness(&self, now: Timestamp) -> Freshness {
        if self.is_expired(now) {
            Freshness::Expired
        } else if self.stale.is_some_and(|at| at <= now) {
            Freshness::Stale
        } else {
            Freshness::Fresh
        }
    }

    /// The same entry with its life cut to `cap` from `now`; never made longer.
    #[must_use]
    pub fn capped(mut self, cap: Option<Duration>, now: Timestamp) -> Self {
        if let Some(cap) = cap {
            let limit = now.after(cap);
            self.expire = Some(self.expire.map_or(limit, |at| at.min(limit)));
            self.stale = self.stale.filter(|&at| at < limit);
            self.retain = self.retain.map(|at| at.min(limit));
        }
        self
    }
}

/// How an entry stands towards its stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[non_exhaustive]
pub enum Freshness {
    /// Neither stale nor expired.
    Fresh,
    /// Past its stale time, still served.
    Stale,
    /// Past its expiry: served only where an option says so.
    Expired,
}

/// A value with its expiry stamps: what a [`Backend`](crate::Backend) reads and writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheValue<T> {
    data: T,
    expire: Option<Timestamp>,
    stale: Option<Timestamp>,
}

impl<T> CacheValue<T> {
    /// A value that expires at `expire` and wants a refresh from `stale` on; `None`: never.
    pub fn new(data: T, expire: Option<Timestamp>, stale: Option<Timestamp>) -> Self {
        Self { data, expire, stale }
    }

    /// The value.
    pub fn data(&self) -> &T {
        &self.data
    }

    /// The value, without its stamps.
    pub fn into_inner(self) -> T {
        self.data
    }

    /// When it expires.
    pub fn expire(&self) -> Option<Timestamp> {
        self.expire
    }

    /// When it wants a refresh.
    pub fn stale(&self) -> Option<Timestamp> {
        self.stale
    }

    /// What is left of its life at `now`, exact to the ms; `None`: it never expires.
    pub fn ttl(&self, now: Timestamp) -> Option<Duration> {
        self.expire.map(|at| at.since(now))
    }

    /// The same stamps around another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> CacheValue<U> {
        CacheValue { data: f(self.data), expire: self.expire, stale: self.stale }
    }
}

/// A decoded value of any type, shared.
pub type Object = Arc<dyn Any + Send + Sync>;

/// What a tier holds of a value: in-process tiers the decoded object, byte tiers the frame.
#[derive(Clone)]
pub enum Payload {
    /// A decoded value and its weight in bytes (0 where nobody asked).
    Object(Object, u32),
    /// A frame: header and encoded value.
    Bytes(Raw),
}

impl Payload {
    /// What the payload weighs: the frame's length, or the object's stated weight, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Self::Object(_, weight) => *weight as usize,
            Self::Bytes(raw) => raw.len(),
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(_, weight) => write!(f, "Object({weight} bytes)"),
            Self::Bytes(raw) => write!(f, "Bytes({} bytes)", raw.len()),
        }
    }
}

/// An entry on its way to or from a tier.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The value.
    pub payload: Payload,
    /// When it was written and how long it lives. From a byte tier, the frame inside the payload decides instead.
    pub meta: Meta,
    /// Written by an earlier opening of the store it comes from: older than every write of this process, whatever
    /// its stamp says (the clock may have been ahead then). Only a store sets it; default false.
    pub inherited: bool,
}

impl Entry {
    /// An entry of this process.
    pub fn new(payload: Payload, meta: Meta) -> Self {
        Self { payload, meta, inherited: false }
    }
}

/// The name of a tier in errors, metrics and `inspect()`. Cheap to clone.
///
/// Every hit carries one, so it is a plain reference: counting references would have all threads write one cache line.
#[derive(Clone)]
pub struct BackendLabel(&'static str);

impl BackendLabel {
    /// A label from a literal.
    pub const fn new_static(label: &'static str) -> Self {
        Self(label)
    }

    /// A label made at run time. Each different text is kept until the process ends: name tiers, not requests.
    pub fn new(label: impl Into<Arc<str>>) -> Self {
        static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let label = label.into();
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(label) = known.get(&*label) {
            return Self(label);
        }
        let label: &'static str = Box::leak(Box::from(&*label));
        known.insert(label);
        Self(label)
    }

    /// The label's text.
    pub fn as_str(&self) -> &str {
        self.0
    }
}

impl PartialEq for BackendLabel {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for BackendLabel {}

impl std::hash::Hash for BackendLabel {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for BackendLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for BackendLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for BackendLabel {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl From<&'static str> for BackendLabel {
    fn from(label: &'static str) -> Self {
        Self::new_static(label)
    }
}

impl From<String> for BackendLabel {
    fn from(label: String) -> Self {
        Self::new(label)
    }
}

/// What a removal found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteStatus {
    /// The key was there, in this many tiers (1 from a single backend).
    Deleted(u32),
    /// The key was not there.
    Missing,
}
