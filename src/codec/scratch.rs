//! Buffers that are used again: what is compressed or unpacked passes through one, what is stored has its own size.

use std::fmt;
use std::sync::{Mutex, TryLockError};

/// The largest buffer that is kept, in bytes; larger ones are freed with their value.
const LARGEST: usize = 1 << 20;

/// At most so many buffers of at most 1 MiB each. One that is not there, or not to be had without waiting, is
/// allocated; one that is lost to a panic is not missed.
pub(crate) struct Scratch {
    most: usize,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Scratch {
    /// Keeps up to `most` buffers.
    pub(crate) const fn new(most: usize) -> Self {
        Self { most, buffers: Mutex::new(Vec::new()) }
    }

    /// An empty buffer.
    pub(super) fn take(&self) -> Vec<u8> {
        self.with(|buffers| buffers.pop()).flatten().unwrap_or_default()
    }

    /// Keeps a buffer for the next one who wants one, if there is room for it.
    pub(super) fn give(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() > LARGEST {
            return;
        }
        buffer.clear();
        // What there is no room for is freed after the lock.
        let mut spare = Some(buffer);
        self.with(|buffers| {
            if buffers.len() < self.most {
                buffers.extend(spare.take());
            }
        });
    }

    fn with<T>(&self, f: impl FnOnce(&mut Vec<Vec<u8>>) -> T) -> Option<T> {
        match self.buffers.try_lock() {
            Ok(mut buffers) => Some(f(&mut buffers)),
            Err(TryLockError::Poisoned(poisoned)) => Some(f(&mut poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("most", &self.most).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again() {
        let scratch = Scratch::new(2);
        let mut buffer = scratch.take();
        buffer.extend([1; 5_000]);
        let at = buffer.as_ptr();
        scratch.give(buffer);
        let again = scratch.take();
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let scratch = Scratch::new(2);
        (0..5).for_each(|_| scratch.give(Vec::with_capacity(100)));
        assert_eq!(scratch.with(|buffers| buffers.len()), Some(2));
        let scratch = Scratch::new(2);
        scratch.give(Vec::with_capacity(LARGEST + 1));
        assert_eq!(scratch.with(|buffers| buffers.len()), Some(0), "it is too large to be kept");
    }
}
