//! What goes wrong, and when.

use std::collections::VecDeque;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tierkeep::Raw;
use tierkeep::runtime::RuntimeHandle;

use crate::rng::Rng;

/// A way in which a store fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing is done, and the call says so. In a batch: for single entries.
    Error,
    /// The call takes a while ([`FaultPlan::delays`]) before it does anything. If it is dropped meanwhile, nothing is
    /// done.
    Delay,
    /// Nothing is done, and the call never returns.
    Hang,
    /// The call is done and answers long after ([`FaultPlan::late`]), even if its caller has gone by then.
    HangThenComplete,
    /// The call panics; of a batch, some first entries may have been done.
    Panic,
    /// The call is done at once but never returns; of a batch, at least the first entry is done.
    LostReply,
    /// The call is done, but says that it failed. In a batch: for single entries.
    AppliedButFails,
    /// **Breaks the contract of a backend**: a mutation is not done, but the call says that it is. No cache can hide
    /// this; it is here to prove that a test would notice. In a batch: for single entries.
    ReportedButNotApplied,
    /// The call never returns, and is done long after ([`FaultPlan::late`]).
    Zombie,
    /// A read's bytes come back flipped, truncated or lengthened; the store keeps them whole. In a batch: for single
    /// entries. Objects are left alone.
    Corrupt,
    /// A write stores the first half of the entry's bytes, and says that it failed. In a batch: for single entries.
    /// Objects are stored whole.
    Torn,
    /// The store does not open.
    RefuseOpen,
    /// The store cannot be reopened.
    FailReopen,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Error,
        Self::Delay,
        Self::Hang,
        Self::HangThenComplete,
        Self::Panic,
        Self::LostReply,
        Self::AppliedButFails,
        Self::ReportedButNotApplied,
        Self::Zombie,
        Self::Corrupt,
        Self::Torn,
        Self::RefuseOpen,
        Self::FailReopen,
    ];

    /// Those that may strike a call of `op`.
    fn strikes(self, op: Op) -> bool {
        match self {
            Self::ReportedButNotApplied => !matches!(op, Op::Read | Op::Open | Op::Reopen),
            Self::Corrupt => op == Op::Read,
            Self::Torn => op == Op::Write,
            Self::RefuseOpen => op == Op::Open,
            Self::FailReopen => op == Op::Reopen,
            _ => true,
        }
    }

    /// Whether an entry that it strikes never reaches the store.
    pub(super) fn prevents(self) -> bool {
        matches!(self, Self::Error | Self::ReportedButNotApplied | Self::RefuseOpen | Self::FailReopen)
    }

    /// Whether it concerns single entries of a batch; the others concern the call.
    fn by_entry(self) -> bool {
        !matches!(
            self,
            Self::Delay | Self::Hang | Self::HangThenComplete | Self::Panic | Self::LostReply | Self::Zombie
        )
    }
}

/// What a backend was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Op {
    /// A read, single or in a batch.
    Read,
    /// A write, single or in a batch.
    Write,
    /// A removal, single or in a batch.
    Remove,
    /// `clear`.
    Clear,
    /// `flush`.
    Flush,
    /// `open`.
    Open,
    /// `reopen`.
    Reopen,
}

impl Op {
    const ALL: [Self; 7] =
        [Self::Read, Self::Write, Self::Remove, Self::Clear, Self::Flush, Self::Open, Self::Reopen];
}

/// What goes wrong at the [`Faulty`](crate::Faulty) backends that share it. Cheap to clone; every change holds from
/// the next call on. New plans let everything pass.
#[derive(Clone)]
pub struct FaultPlan(Arc<Mutex<Plan>>);

struct Plan {
    rng: Rng,
    enabled: bool,
    /// By [`Op`], then [`Fault`].
    rates: [[f64; Fault::ALL.len()]; Op::ALL.len()],
    script: VecDeque<(Option<Op>, Fault)>,
    delays: RangeInclusive<Duration>,
    late: RangeInclusive<Duration>,
    counts: [u64; Fault::ALL.len()],
    calls: [u64; Op::ALL.len()],
}

impl FaultPlan {
    /// A plan without faults, whose choices follow from the runtime's randomness.
    pub fn new(runtime: &RuntimeHandle) -> Self {
        Self::seeded(runtime.random())
    }

    /// A plan without faults, whose choices follow from `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Plan {
            rng: Rng::new(seed),
            enabled: true,
            rates: [[0.0; Fault::ALL.len()]; Op::ALL.len()],
            script: VecDeque::new(),
            delays: Duration::from_millis(1)..=Duration::from_millis(20),
            late: Duration::from_millis(100)..=Duration::from_secs(5),
            counts: [0; Fault::ALL.len()],
            calls: [0; Op::ALL.len()],
        })))
    }

    /// Lets `fault` strike with this probability: for each read, write and removal, or for each open or reopen if it
    /// is of those. Probabilities of several kinds add up; past 1 the later kinds of [`Fault::ALL`] are cut.
    pub fn rate(&self, fault: Fault, probability: f64) {
        match fault {
            Fault::RefuseOpen => self.rate_on(Op::Open, fault, probability),
            Fault::FailReopen => self.rate_on(Op::Reopen, fault, probability),
            _ => {
                for op in [Op::Read, Op::Write, Op::Remove] {
                    self.rate_on(op, fault, probability);
                }
            }
        }
    }

    /// Lets `fault` strike calls of `op` with this probability. No effect where it makes no sense (corrupting a
    /// write).
    pub fn rate_on(&self, op: Op, fault: Fault, probability: f64) {
        if fault.strikes(op) {
            self.lock().rates[op as usize][fault as usize] = probability;
        }
    }

    /// Strikes the next `times` calls that `fault` can strike. Scripted faults come before those by probability. A
    /// call takes the first that fits it, in the order they were given; in a batch, one by entry strikes one entry.
    pub fn next(&self, fault: Fault, times: usize) {
        self.lock().script.extend(std::iter::repeat_n((None, fault), times));
    }

    /// Strikes the next `times` calls of `op`.
    pub fn next_on(&self, op: Op, fault: Fault, times: usize) {
        if fault.strikes(op) {
            self.lock().script.extend(std::iter::repeat_n((Some(op), fault), times));
        }
    }

    /// Forgets all probabilities and scripted faults: the store is well. Calls under way stay as they are.
    pub fn heal(&self) {
        let mut plan = self.lock();
        plan.rates = [[0.0; Fault::ALL.len()]; Op::ALL.len()];
        plan.script.clear();
    }

    /// Switches faults off or on again, keeping what was set. Default: on. Backends offer their port only while it is
    /// off, since reads through a port cannot fail.
    pub fn enable(&self, on: bool) {
        self.lock().enabled = on;
    }

    /// Whether faults are on.
    pub fn is_enabled(&self) -> bool {
        self.lock().enabled
    }

    /// How long [`Fault::Delay`] takes. Default: 1 to 20 ms.
    pub fn delays(&self, range: RangeInclusive<Duration>) {
        self.lock().delays = range;
    }

    /// After which time [`Fault::HangThenComplete`] and [`Fault::Zombie`] are done. Default: 0.1 to 5 s. Past the
    /// backend's `residual` time they would break its contract.
    pub fn late(&self, range: RangeInclusive<Duration>) {
        self.lock().late = range;
    }

    /// How often `fault` has struck.
    pub fn count(&self, fault: Fault) -> u64 {
        self.lock().counts[fault as usize]
    }

    /// How often a fault of any kind has struck.
    pub fn total(&self) -> u64 {
        self.lock().counts.iter().sum()
    }

    /// How many calls of `op` came in, struck or not; a batch is one.
    pub fn calls(&self, op: Op) -> u64 {
        self.lock().calls[op as usize]
    }

    /// What strikes a call of `op` with `entries` entries: the whole call, and each entry.
    pub(super) fn draw(&self, op: Op, entries: usize) -> (Option<Fault>, Vec<Option<Fault>>) {
        let mut plan = self.lock();
        plan.calls[op as usize] += 1;
        if !plan.enabled {
            return (None, vec![None; entries]);
        }
        let whole = plan.pick(op, false, true);
        // A call that is struck as a whole does not use up what is scripted for its successors.
        (whole, (0..entries).map(|_| plan.pick(op, true, whole.is_none())).collect())
    }

    pub(super) fn delay(&self) -> Duration {
        let mut plan = self.lock();
        let range = plan.delays.clone();
        plan.rng.duration(&range)
    }

    pub(super) fn lateness(&self) -> Duration {
        let mut plan = self.lock();
        let range = plan.late.clone();
        plan.rng.duration(&range)
    }

    /// How many of `entries` a broken-off batch has done: at least `least`.
    pub(super) fn part(&self, least: usize, entries: usize) -> usize {
        least + self.lock().rng.index((entries + 1).saturating_sub(least))
    }

    /// Damages bytes, so that they differ.
    pub(super) fn corrupt(&self, bytes: &Raw) -> Raw {
        let mut plan = self.lock();
        let rng = &mut plan.rng;
        let mut damaged = bytes.to_vec();
        match rng.below(4) {
            0 if !damaged.is_empty() => damaged.truncate(rng.index(damaged.len())),
            1 => damaged.extend_from_slice(&rng.next().to_le_bytes()),
            _ if !damaged.is_empty() => {
                for _ in 0..=rng.below(4) {
                    let at = rng.index(damaged.len());
                    damaged[at] ^= 1 << rng.below(8);
                }
                // Flips may have undone each other.
                if damaged == bytes[..] {
                    damaged[0] ^= 1;
                }
            }
            _ => damaged.push(0),
        }
        damaged.into()
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    fn pick(&mut self, op: Op, by_entry: bool, scripted: bool) -> Option<Fault> {
        let fits = |fault: Fault| fault.by_entry() == by_entry && fault.strikes(op);
        let fault = match self.scripted(op).filter(|&at| scripted && fits(self.script[at].1)) {
            Some(at) => self.script.remove(at).map(|(_, fault)| fault),
            None => self.roll(op, &fits),
        };
        if let Some(fault) = fault {
            self.counts[fault as usize] += 1;
        }
        fault
    }

    /// The scripted fault whose turn it is at a call of `op`: those for other calls may wait before it.
    fn scripted(&self, op: Op) -> Option<usize> {
        self.script.iter().position(|&(on, fault)| fault.strikes(op) && on.is_none_or(|on| on == op))
    }

    fn roll(&mut self, op: Op, fits: &dyn Fn(Fault) -> bool) -> Option<Fault> {
        let rates = &self.rates[op as usize];
        let mut left = self.rng.unit();
        Fault::ALL.into_iter().filter(|&fault| fits(fault)).find(|&fault| {
            left -= rates[fault as usize];
            left < 0.0
        })
    }
}

impl fmt::Debug for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.lock();
        let counts = Fault::ALL.into_iter().filter(|&fault| plan.counts[fault as usize] > 0);
        f.debug_map().entries(counts.map(|fault| (fault, plan.counts[fault as usize]))).finish()
    }
}
