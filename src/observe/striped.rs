//! A counter that threads do not fight for.

use std::cell::{Cell, OnceCell};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// How many threads have a stripe of their own at a time.
const OWN: usize = 32;

/// What further threads share. A power of two.
const SHARED: usize = 8;

/// Counts in a cache line of the calling thread's own, so that reads on several cores write no line between them.
/// Takes 5 KiB: for what is counted on every hit.
#[derive(Debug)]
pub(crate) struct Striped([Stripe; OWN + SHARED]);

/// Two lines: processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Stripe(AtomicU64);

const _: () = assert!(size_of::<Stripe>() == 128 && align_of::<Striped>() == 128);

impl Default for Striped {
    fn default() -> Self {
        Self([const { Stripe(AtomicU64::new(0)) }; OWN + SHARED])
    }
}

impl Striped {
    #[inline]
    pub(crate) fn one(&self) {
        let mine = mine();
        let count = &self.0[mine].0;
        // Counters order nothing. Nobody else writes to a thread's own stripe, so that the bus need not be locked.
        if mine < OWN {
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        } else {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn sum(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum()
    }
}

thread_local! {
    static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// The stripe of this thread.
#[inline]
fn mine() -> usize {
    let mine = MINE.get();
    if mine < OWN + SHARED { mine } else { deal() }
}

/// The stripes that some thread has for its own, a bit each.
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// Gives the thread's own stripe back as the thread ends.
struct Lease(usize);

impl Drop for Lease {
    fn drop(&mut self) {
        // What is still counted on this thread, by other destructors, goes to a shared stripe.
        MINE.set(OWN);
        // Release, and Acquire in `deal`: the next owner goes on from what this thread has counted.
        TAKEN.fetch_and(!(1 << self.0), Ordering::Release);
    }
}

#[cold]
fn deal() -> usize {
    thread_local! {
        static LEASE: OnceCell<Lease> = const { OnceCell::new() };
    }
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let free = |taken: u32| (taken != u32::MAX).then(|| taken | (taken + 1));
    let mine = match TAKEN.fetch_update(Ordering::Acquire, Ordering::Relaxed, free) {
        Ok(taken) => {
            let lease = Lease(taken.trailing_ones() as usize);
            let own = lease.0;
            // While the thread ends there is nowhere to keep it: then it is given back at once.
            let kept = LEASE.try_with(|kept| drop(kept.set(lease))).is_ok();
            if kept { own } else { OWN }
        }
        Err(_) => OWN + NEXT.fetch_add(1, Ordering::Relaxed) % SHARED,
    };
    MINE.set(mine);
    mine
}

const _: () = assert!(OWN == u32::BITS as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_threads_add_up() {
        let count = Striped::default();
        // More at a time than there are stripes, and then others that take over what the first have given back.
        for round in 1..=3 {
            let together = std::sync::Barrier::new(2 * OWN);
            std::thread::scope(|scope| {
                for _ in 0..2 * OWN {
                    scope.spawn(|| {
                        count.one();
                        together.wait();
                        (1..100).for_each(|_| count.one());
                    });
                }
            });
            assert_eq!(count.sum(), round * 200 * OWN as u64);
        }
        let (own, shared) = count.0.split_at(OWN);
        let most = own.iter().filter(|stripe| stripe.0.load(Ordering::Relaxed) > 0).count();
        // Other tests have threads as well.
        assert!(most > OWN / 2, "{most} threads had a stripe of their own");
        assert!(
            shared.iter().all(|stripe| stripe.0.load(Ordering::Relaxed) > 0),
            "the others share, in turn"
        );
    }
}
