//! What the engine's files need around them, as little as will do.

pub(crate) mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

pub(crate) mod planted {
    use std::cell::Cell;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Plant {
        NoFence,
        FenceBusy,
        ClearHidesNothing,
    }

    thread_local! {
        static PLANTED: Cell<Option<Plant>> = const { Cell::new(None) };
    }

    /// loom runs all threads of a model on the thread that explores it.
    pub(crate) fn plant(bug: Plant) {
        PLANTED.set(Some(bug));
    }

    pub(crate) fn planted(bug: Plant) -> bool {
        PLANTED.get() == Some(bug)
    }
}

pub(crate) mod runtime {
    pub(crate) struct RuntimeHandle;

    impl RuntimeHandle {
        pub(crate) fn random(&self) -> u64 {
            7
        }
    }
}

pub(crate) mod backend {
    use std::sync::Arc;

    pub(crate) enum Scope {
        All,
        Prefix(Arc<str>),
    }
}

pub(crate) mod value {
    use std::time::Duration;

    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Timestamp(pub(crate) u64);

    impl Timestamp {
        pub(crate) fn as_millis(self) -> u64 {
            self.0
        }

        pub(crate) fn after(self, duration: Duration) -> Self {
            Self(self.0 + u64::try_from(duration.as_millis()).expect("a short time"))
        }
    }

    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Stamp {
        pub(crate) time: u64,
        pub(crate) node: u32,
    }

    impl Stamp {
        pub(crate) fn wall(self) -> Timestamp {
            Timestamp(self.time >> 16)
        }
    }
}
