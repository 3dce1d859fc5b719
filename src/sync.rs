//! The atomics that decide the order. Named here so that `models/` can build the same files on loom's, which explores
//! what threads may see of each other.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
