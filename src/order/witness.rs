//! Watches which fences were void in vain: because of another key of their stripe. For tests; elsewhere it is empty.

#[cfg(feature = "testing")]
pub use watching::FenceCounts;
#[cfg(feature = "testing")]
pub(crate) use watching::Witness;

#[cfg(feature = "testing")]
mod watching {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// How often fences were asked for, and what for nothing.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct FenceCounts {
        /// Fences taken, or held up to their stripe when something was to be written under them.
        pub asked: u64,
        /// Of these, how many were void.
        pub void: u64,
        /// Of the void ones, how many although no mutation of their own key was under way or had come between, nor any
        /// clear: only another key of the stripe.
        pub in_vain: u64,
    }

    #[derive(Debug, Default)]
    pub(crate) struct Witness {
        on: AtomicBool,
        records: Mutex<Records>,
    }

    #[derive(Debug, Default)]
    struct Records {
        /// By the key's hash.
        keys: HashMap<u64, Own>,
        clears: Own,
        counts: FenceCounts,
    }

    #[derive(Debug, Default, Clone, Copy)]
    struct Own {
        begun: u64,
        busy: u64,
    }

    impl Records {
        /// Mutations of a key, or those that concern every key.
        fn own(&mut self, hash: Option<u64>) -> &mut Own {
            match hash {
                Some(hash) => self.keys.entry(hash).or_default(),
                None => &mut self.clears,
            }
        }

        fn look(&self, hash: u64) -> Own {
            let own = self.keys.get(&hash).copied().unwrap_or_default();
            Own { begun: own.begun + self.clears.begun, busy: own.busy + self.clears.busy }
        }

        fn count(&mut self, void: bool, in_vain: bool) {
            self.counts.asked += 1;
            self.counts.void += u64::from(void);
            self.counts.in_vain += u64::from(void && in_vain);
        }
    }

    impl Witness {
        /// Begins to watch; until then it costs one load. Its memory grows with the number of keys.
        pub(crate) fn watch(&self) {
            self.on.store(true, Ordering::Relaxed);
        }

        pub(crate) fn counts(&self) -> FenceCounts {
            self.lock().counts
        }

        pub(crate) fn begin(&self, hash: Option<u64>) {
            if self.is_on() {
                let mut records = self.lock();
                let own = records.own(hash);
                own.begun += 1;
                own.busy += 1;
            }
        }

        /// Goes on in another place.
        pub(crate) fn hold(&self, hash: u64) {
            if self.is_on() {
                self.lock().own(Some(hash)).busy += 1;
            }
        }

        pub(crate) fn end(&self, hash: Option<u64>) {
            if self.is_on() {
                let mut records = self.lock();
                let own = records.own(hash);
                own.busy = own.busy.saturating_sub(1);
            }
        }

        /// A fence was asked for; returns what to compare with later.
        pub(crate) fn taken(&self, hash: u64, void: bool) -> u64 {
            if !self.is_on() {
                return 0;
            }
            let mut records = self.lock();
            let own = records.look(hash);
            records.count(void, own.busy == 0);
            own.begun
        }

        /// A fence was held up to its stripe.
        pub(crate) fn held(&self, hash: u64, own: u64, void: bool) {
            if self.is_on() {
                let mut records = self.lock();
                let in_vain = records.look(hash).begun == own;
                records.count(void, in_vain);
            }
        }

        fn is_on(&self) -> bool {
            self.on.load(Ordering::Relaxed)
        }

        fn lock(&self) -> MutexGuard<'_, Records> {
            self.records.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

#[cfg(not(feature = "testing"))]
#[derive(Debug, Default)]
pub(crate) struct Witness {}

#[cfg(not(feature = "testing"))]
impl Witness {
    #[inline(always)]
    pub(crate) const fn begin(&self, _: Option<u64>) {}

    #[inline(always)]
    pub(crate) const fn hold(&self, _: u64) {}

    #[inline(always)]
    pub(crate) const fn end(&self, _: Option<u64>) {}

    #[inline(always)]
    pub(crate) const fn taken(&self, _: u64, _: bool) -> u64 {
        0
    }

    #[inline(always)]
    pub(crate) const fn held(&self, _: u64, _: u64, _: bool) {}
}
