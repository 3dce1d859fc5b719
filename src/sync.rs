//! The atomics that decide the order. Named here so that `models/` can build the same files on loom's, which explores
//! what threads may see of each other.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// In cache lines of its own: what every mutation writes must not lie beside what every call reads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

impl<T> std::ops::Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
