//! A counter that threads do not fight for.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A power of two. With more threads than this, some share a stripe: slower, and as right.
const STRIPES: usize = 32;

/// Counts in a cache line of the calling thread's own, so that reads on several cores write no line between them.
/// Takes 4 KiB: for what is counted on every hit.
#[derive(Debug)]
pub(crate) struct Striped([Stripe; STRIPES]);

/// Two lines: processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Stripe(AtomicU64);

impl Default for Striped {
    fn default() -> Self {
        Self([const { Stripe(AtomicU64::new(0)) }; STRIPES])
    }
}

impl Striped {
    #[inline]
    pub(crate) fn one(&self) {
        // Counters order nothing.
        self.0[mine()].0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sum(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum()
    }
}

/// The stripe of this thread: they are dealt out in turn.
#[inline]
fn mine() -> usize {
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    let mine = MINE.get();
    if mine < STRIPES { mine } else { deal(&MINE) }
}

#[cold]
fn deal(mine: &'static std::thread::LocalKey<Cell<usize>>) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
    mine.set(next);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_threads_add_up() {
        let count = Striped::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| (0..100).for_each(|_| count.one()));
            }
        });
        assert_eq!(count.sum(), 200 * STRIPES as u64);
        let used = count.0.iter().filter(|stripe| stripe.0.load(Ordering::Relaxed) > 0);
        assert_eq!(used.count(), STRIPES, "dealt out in turn");
    }
}
