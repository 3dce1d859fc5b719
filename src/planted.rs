//! Bugs that a test can plant, to see that it would notice them. Without the feature `testing` there are none, and the
//! questions below are constants.
//!
//! "A clear leaves fences valid" is not among them, since nothing would be wrong: a clear hides by stamp, and what
//! refills and loads bring has a stamp drawn before it was read. That clears void fences only spares useless fills.

/// A rule of the engine that can be taken out, on this thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Plant {
    /// Refills and fills apply whatever happened since.
    NoFence,
    /// A fence may be taken, or hold, while a mutation of its stripe is under way.
    FenceBusy,
    /// A refill takes its fence after the lower read, not before.
    FenceLate,
    /// A load takes its fence when it returns, not before it starts.
    FenceAtFill,
    /// A tier applies an operation older than one it has settled.
    NoLedger,
    /// A tier settles an operation as superseded because a newer one was numbered, before that one settled here.
    DropMinted,
    /// An in-process tier that could not apply a mutation goes on answering.
    NoQuarantineInProcess,
    /// A tier behind calls that could not apply a mutation goes on answering.
    NoQuarantine,
    /// The read port does not look at the quarantine.
    PortIgnoresQuarantine,
    /// A quarantine ends when the repair is confirmed, though the call that timed out may still be applied.
    LiftAtConfirmation,
    /// Two mutations of one key are in flight at one tier.
    TwoOut,
    /// A fill in flight does not count as the key's outstanding attempt.
    FillNotOut,
    /// A fill that timed out does not quarantine.
    FillNoQuarantine,
    /// A mutation that is lost with an incarnation of the actor is forgotten.
    LostOnRestart,
    /// The answers of a writing batch are shifted by one key.
    BatchShifted,
    /// The losers of a write race are not quarantined.
    RaceLoserShows,
    /// A mutation does not detach the load in flight.
    LateJoiner,
    /// A clear does not hide what is older.
    ClearHidesNothing,
    /// TTLs are cut to whole seconds, and what is left of a second never expires.
    TtlInSeconds,
    /// `Parallel` takes an entry that never expires for the freshest.
    NoExpiryIsFreshest,
    /// An overtaken mutation settles at once, not with its successor.
    OvertakenEarly,
    /// A repair writes what was wanted first, not last.
    RepairsOldest,
    /// Callers wait for a tier far beyond its deadline.
    NoDeadline,
    /// A tier that served again after a bypass shows what it had before.
    BypassHidesNothing,
    /// The other tiers keep their entry when a store that compares says that it holds a newer one.
    OutdatedStays,
    /// What other processes say that they wrote is ignored.
    HeardIgnored,
    /// Messages of other processes that were missed are not noticed.
    GapIgnored,
    /// A fill replaces an entry that is newer than it.
    OlderFill,
    /// An inherited entry keeps its stamp, which may lie ahead of this process's clock.
    InheritedAhead,
    /// Reads of a write-behind tier do not see what is pending.
    PendingHidden,
    /// Of several pending changes of a key the oldest is sent.
    CoalescesOldest,
    /// A pending change is sent though a timed-out attempt with an older one may still be applied.
    PendingOvertakesLate,
    /// Some of the keys of a batch that failed are forgotten when it is split.
    SplitLosesKey,
    /// A write that is given up does not quarantine its key.
    DeadNotQuarantined,
    /// An accepted write is not remembered as settled, nor held against what is.
    AcceptForgetsSettled,
    /// A clear leaves pending what it covers.
    ClearLeavesPending,
    /// A write that gives way to a newer one is neither counted nor handed to the dead letters.
    DropCountsNothing,
    /// A write that is refused supersedes the acknowledged one before it at once, not when its repair is confirmed.
    RefusedForgetsAcknowledged,
    /// A journal that syncs always acknowledges what it has only written.
    JournalAcksUnsynced,
    /// What a journal holds is not pending after a restart.
    JournalNotReplayed,
    /// A journal forgets a dead letter before its sink has it.
    LetterForgotten,
    /// A repair removes from the store what a change was to replace that was given up, before the journal has synced that.
    RepairsUnkept,
}

impl Plant {
    /// Those of write-behind tiers, which an exploration of such tiers can notice.
    pub const BEHIND: [Self; 8] = [
        Self::PendingHidden,
        Self::CoalescesOldest,
        Self::PendingOvertakesLate,
        Self::SplitLosesKey,
        Self::DeadNotQuarantined,
        Self::AcceptForgetsSettled,
        Self::ClearLeavesPending,
        Self::DropCountsNothing,
    ];

    /// Those of journals, which an exploration of restarts can notice.
    pub const JOURNAL: [Self; 5] = [
        Self::RefusedForgetsAcknowledged,
        Self::JournalAcksUnsynced,
        Self::JournalNotReplayed,
        Self::LetterForgotten,
        Self::RepairsUnkept,
    ];

    /// Those that an exploration can notice. [`InheritedAhead`](Self::InheritedAhead) needs a store that outlives a
    /// process, [`OutdatedStays`](Self::OutdatedStays), [`OlderFill`](Self::OlderFill), [`HeardIgnored`](Self::HeardIgnored)
    /// and [`GapIgnored`](Self::GapIgnored) one that two processes share: they have tests of their own (`tests/order`, `tests/shared`).
    pub const ALL: [Self; 24] = [
        Self::NoFence,
        Self::FenceBusy,
        Self::FenceLate,
        Self::FenceAtFill,
        Self::NoLedger,
        Self::DropMinted,
        Self::NoQuarantineInProcess,
        Self::NoQuarantine,
        Self::PortIgnoresQuarantine,
        Self::LiftAtConfirmation,
        Self::TwoOut,
        Self::FillNotOut,
        Self::FillNoQuarantine,
        Self::LostOnRestart,
        Self::BatchShifted,
        Self::RaceLoserShows,
        Self::LateJoiner,
        Self::ClearHidesNothing,
        Self::TtlInSeconds,
        Self::NoExpiryIsFreshest,
        Self::OvertakenEarly,
        Self::RepairsOldest,
        Self::NoDeadline,
        Self::BypassHidesNothing,
    ];
}

#[cfg(feature = "testing")]
mod planting {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Plant;

    thread_local! {
        static PLANTED: Cell<Option<Plant>> = const { Cell::new(None) };
    }

    /// One more than the index of the bug that is planted on every thread; 0: none.
    static EVERYWHERE: AtomicUsize = AtomicUsize::new(0);

    /// Plants a bug for everything that runs on this thread from now on; `None`: takes it out again.
    pub fn plant(bug: Option<Plant>) {
        PLANTED.set(bug);
    }

    /// Plants a bug on every thread of this process from now on; `None`: takes it out again. For tests on real
    /// threads, alone in their process.
    pub fn plant_everywhere(bug: Option<Plant>) {
        let index = bug.and_then(|bug| Plant::ALL.iter().position(|&known| known == bug));
        EVERYWHERE.store(index.map_or(0, |index| index + 1), Ordering::SeqCst);
    }

    pub(crate) fn planted(bug: Plant) -> bool {
        let everywhere = EVERYWHERE.load(Ordering::Relaxed);
        PLANTED.get() == Some(bug) || (everywhere > 0 && Plant::ALL[everywhere - 1] == bug)
    }
}

#[cfg(feature = "testing")]
pub(crate) use planting::planted;
#[cfg(feature = "testing")]
pub use planting::{plant, plant_everywhere};

#[cfg(not(feature = "testing"))]
#[inline(always)]
pub(crate) const fn planted(_: Plant) -> bool {
    false
}
