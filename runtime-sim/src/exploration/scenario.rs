//! What a seed draws: a cache, a workload, and what goes wrong.

use std::time::Duration;

use tierkeep::composition::{ReadPolicy, WritePolicy};

use super::behind::BehindPlan;
use crate::faults::Fault;
use crate::rng::Rng;

/// One random cache with its work and faults. The same seed gives the same scenario.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Scenario {
    /// Seeds the scenario and the simulator's schedule.
    pub seed: u64,
    /// The tiers, topmost first.
    pub tiers: Vec<TierPlan>,
    /// How they are read.
    pub read: ReadPolicy,
    /// Whose confirmation is awaited.
    pub write: WritePolicy,
    /// Whether hits are refilled.
    pub refill: bool,
    /// Stripes of the fence table: few, so that keys share them.
    pub stripes: usize,
    /// Places in the refill lane.
    pub refill_lane: usize,
    /// Keys 0..sets are set and removed; keys sets..keys stand for rows of a database that are loaded and invalidated.
    pub sets: u64,
    /// How many keys there are.
    pub keys: u64,
    /// How long a load may take.
    pub load_deadline: Duration,
    /// How long entries live; `None`: for ever.
    pub ttl: Option<Duration>,
    /// Whether the wall clock jumps (expiry is then not checked).
    pub jumps: bool,
    /// Whether a store reports writes that it did not do, which no cache can hide: only survival is checked.
    pub lying: bool,
    /// Whether many callers crowd at one key, so that their mutations overtake each other on the way.
    pub crowded: bool,
    /// The work: who does what.
    pub steps: Vec<Step>,
    /// How many callers share the work.
    pub callers: usize,
}

/// A tier of a scenario.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TierPlan {
    /// What kind of backend.
    pub kind: Kind,
    /// See the field of the same name in [`TierOptions`](tierkeep::TierOptions), as the others.
    pub read_deadline: Duration,
    #[expect(missing_docs, reason = "as the first")]
    pub write_deadline: Duration,
    #[expect(missing_docs, reason = "as the first")]
    pub mailbox: usize,
    #[expect(missing_docs, reason = "as the first")]
    pub batch_keys: usize,
    #[expect(missing_docs, reason = "as the first")]
    pub concurrency: usize,
    #[expect(missing_docs, reason = "as the first")]
    pub quarantine: usize,
    #[expect(missing_docs, reason = "as the first")]
    pub ttl_cap: Option<Duration>,
    /// Whether a remote store says that it answers at once, which it does but for its faults.
    pub immediate: bool,
    /// How it writes behind, if it does.
    pub behind: Option<BehindPlan>,
    /// What goes wrong, how often.
    pub rates: Vec<(Fault, f64)>,
}

/// A kind of backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The memory tier, bounded by entries.
    Entries(usize),
    /// The memory tier, bounded by bytes.
    Bytes(u64),
    /// A store of bytes behind faults.
    Remote,
    /// A synchronous store of bytes on the blocking pool.
    Blocking,
}

/// One step of one caller.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Step {
    /// Its number, by which a replay names the steps to keep.
    pub id: usize,
    /// Who does it.
    pub caller: usize,
    /// How long the caller waits first.
    pub pause: Duration,
    /// After how long the caller gives it up, if it does.
    pub patience: Option<Duration>,
    /// What.
    pub kind: StepKind,
}

/// What a step does.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum StepKind {
    /// `get`
    Get(u64),
    /// `get_many`
    GetMany(Vec<u64>),
    /// `contains`
    Contains(u64),
    /// `set`
    Set(u64),
    /// `set_for`, with this TTL
    SetFor(u64, Duration),
    /// `set_many`
    SetMany(Vec<u64>),
    /// `remove`
    Remove(u64),
    /// Writes the database, then removes the key.
    Update(u64),
    /// `get_or_load`
    Load(u64, Loader),
    /// `clear` of the region of set keys.
    ClearRegion,
    /// `clear` of everything.
    ClearAll,
    /// An incarnation of a tier's actor crashes.
    CrashTier(usize),
    /// A tier's actor crashes once more than it is restarted, so that the tier is down for a while.
    CrashLoop(usize),
    /// The supervisor crashes.
    CrashSupervisor,
    /// The wall clock jumps by so many ms.
    JumpWall(i64),
}

/// How a loader behaves.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Loader {
    /// Reads the row after the first time, returns after the second.
    Reads(Duration, Duration),
    /// Fails after a time.
    Fails(Duration),
    /// Panics after a time.
    Panics(Duration),
}

impl Scenario {
    /// Draws the scenario of `seed`.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed_0000);
        let jumps = chance(&mut rng, 0.1);
        let lying = chance(&mut rng, 0.03);
        let calm = chance(&mut rng, 0.15);
        let tiers: Vec<_> =
            (0..[2, 2, 1, 3, 2, 4][rng.index(6)]).map(|index| tier(&mut rng, index, calm, lying)).collect();
        let crowd = [Some(Crowd::Key), Some(Crowd::Turns), Some(Crowd::Batches)]
            .get(rng.index(14))
            .copied()
            .flatten();
        let crowded = crowd.is_some();
        let sets = match crowd {
            Some(Crowd::Batches) => 4,
            Some(_) => 1,
            None => 1 + rng.below(4),
        };
        let keys = sets + 1 + rng.below(3);
        let callers = if crowded { 6 } else { 2 + rng.index(4) };
        let mut scenario = Self {
            seed,
            read: [ReadPolicy::Sequential, ReadPolicy::Sequential, ReadPolicy::Race, ReadPolicy::Parallel]
                [rng.index(4)],
            write: [
                WritePolicy::OptimisticParallel { require_all: false },
                WritePolicy::OptimisticParallel { require_all: true },
                WritePolicy::Sequential,
                WritePolicy::Race,
                WritePolicy::WriteAround,
            ][rng.index(5)],
            refill: !chance(&mut rng, 0.1),
            stripes: [1, 2, 8, 4096][rng.index(4)],
            refill_lane: [1, 4, 1024][rng.index(3)],
            // Now and then shorter than loaders take.
            load_deadline: if chance(&mut rng, 0.2) {
                millis(&mut rng, 5, 60)
            } else {
                Duration::from_secs(2)
            },
            ttl: chance(&mut rng, 0.4).then(|| millis(&mut rng, 5, 400)),
            sets,
            keys,
            jumps,
            lying,
            crowded,
            callers,
            steps: Vec::new(),
            tiers,
        };
        let steps = callers * (80 + rng.index(130));
        if let Some(crowd) = crowd {
            scenario.gather(&mut rng, crowd);
        }
        for (index, tier) in scenario.tiers.iter_mut().enumerate() {
            tier.immediate = (seed >> index) & 1 == 1;
        }
        scenario.steps = (0..steps).map(|id| step(&mut rng, id, &scenario)).collect();
        scenario
    }
}

pub(super) fn chance(rng: &mut Rng, p: f64) -> bool {
    rng.unit() < p
}

pub(super) fn millis(rng: &mut Rng, low: u64, high: u64) -> Duration {
    Duration::from_millis(low + rng.below(high - low + 1))
}

pub(super) fn micros(rng: &mut Rng, most: u64) -> Duration {
    // Mostly short, so that steps meet; now and then long.
    let most = [most / 20, most / 4, most][rng.index(3)];
    Duration::from_micros(rng.below(most + 1))
}

/// Where many callers meet.
#[derive(Clone, Copy)]
enum Crowd {
    /// At one key, before mailboxes of one place.
    Key,
    /// At one key of slow stores that are written in turn: what is older comes later to the lower one.
    Turns,
    /// In batches of which single entries fail.
    Batches,
}

impl Scenario {
    fn gather(&mut self, rng: &mut Rng, crowd: Crowd) {
        if !matches!(crowd, Crowd::Key) {
            if matches!(crowd, Crowd::Turns) {
                self.write = WritePolicy::Sequential;
            }
            let calm = tier(rng, 1, true, false);
            self.tiers.resize(self.tiers.len().max(2), calm);
        }
        for tier in &mut self.tiers {
            match crowd {
                Crowd::Key => tier.mailbox = 1,
                Crowd::Turns => {
                    tier.kind = Kind::Remote;
                    tier.rates = vec![(Fault::Delay, 0.3 + 0.5 * rng.unit())];
                    (tier.concurrency, tier.quarantine) = (4, 100);
                    tier.write_deadline = millis(rng, 40, 90);
                }
                Crowd::Batches => {
                    (tier.mailbox, tier.batch_keys, tier.concurrency, tier.quarantine) = (64, 8, 1, 100);
                    let often = |rng: &mut Rng| 0.05 + 0.15 * rng.unit();
                    tier.rates = vec![
                        (Fault::Error, often(rng)),
                        (Fault::AppliedButFails, often(rng)),
                        (Fault::Delay, 0.6),
                    ];
                }
            }
        }
    }
}

fn tier(rng: &mut Rng, index: usize, calm: bool, lying: bool) -> TierPlan {
    // Small on top, so that reads go below; stores that fail below.
    let small = Kind::Entries(1 + rng.index(3));
    let kinds = if index == 0 {
        [small, small, small, Kind::Entries(100), Kind::Bytes(1 << 16), Kind::Remote]
    } else {
        [Kind::Remote, Kind::Remote, Kind::Remote, Kind::Remote, Kind::Entries(100), Kind::Blocking]
    };
    let kind = kinds[rng.index(6)];
    let mut rates = Vec::new();
    if kind == Kind::Remote && !calm {
        for fault in Fault::ALL {
            let wanted = match fault {
                Fault::ReportedButNotApplied => lying,
                Fault::Delay => chance(rng, 0.8),
                _ => chance(rng, 0.35),
            };
            if wanted {
                let most = match fault {
                    Fault::Delay => 0.8,
                    // Stores are reopened seldom, and one that does not open has nothing to show.
                    Fault::FailReopen => 0.6,
                    Fault::RefuseOpen => 0.2,
                    _ => 0.12,
                };
                rates.push((fault, rng.unit() * most));
            }
        }
    }
    TierPlan {
        immediate: false,
        kind,
        read_deadline: millis(rng, 3, 40),
        write_deadline: millis(rng, 3, 60),
        mailbox: [1, 2, 8, 64][rng.index(4)],
        batch_keys: [1, 2, 8][rng.index(3)],
        concurrency: 1 + rng.index(4),
        quarantine: [1, 2, 100, 100][rng.index(4)],
        ttl_cap: chance(rng, 0.2).then(|| millis(rng, 5, 200)),
        behind: None,
        rates,
    }
}

fn step(rng: &mut Rng, id: usize, scenario: &Scenario) -> Step {
    let set_key = |rng: &mut Rng| skewed(rng, scenario.sets);
    let row_key = |rng: &mut Rng| scenario.sets + skewed(rng, scenario.keys - scenario.sets);
    let any_key = |rng: &mut Rng| if chance(rng, 0.5) { set_key(rng) } else { row_key(rng) };
    let kind = match rng.below(1000) {
        0..=279 => StepKind::Get(any_key(rng)),
        280..=319 => StepKind::GetMany((0..2 + rng.index(4)).map(|_| any_key(rng)).collect()),
        320..=339 => StepKind::Contains(any_key(rng)),
        340..=489 => StepKind::Set(set_key(rng)),
        490..=519 => StepKind::SetFor(set_key(rng), millis(rng, 5, 150)),
        520..=549 => StepKind::SetMany((0..2 + rng.index(3)).map(|_| set_key(rng)).collect()),
        550..=619 => StepKind::Remove(any_key(rng)),
        620..=729 => StepKind::Update(row_key(rng)),
        730..=949 => {
            let loader = match rng.below(20) {
                0 => Loader::Fails(micros(rng, 20_000)),
                1 => Loader::Panics(micros(rng, 20_000)),
                _ => Loader::Reads(micros(rng, 5_000), micros(rng, 30_000)),
            };
            StepKind::Load(row_key(rng), loader)
        }
        950..=959 => StepKind::ClearRegion,
        960..=964 => StepKind::ClearAll,
        965..=983 => StepKind::CrashTier(rng.index(scenario.tiers.len())),
        984 if chance(rng, 0.25) => StepKind::CrashLoop(rng.index(scenario.tiers.len())),
        985..=989 => StepKind::CrashSupervisor,
        _ if scenario.jumps => StepKind::JumpWall(rng.below(20_000) as i64 - 10_000),
        _ => StepKind::Get(any_key(rng)),
    };
    let patience = chance(rng, 0.06).then(|| micros(rng, 20_000));
    Step {
        id,
        caller: rng.index(scenario.callers),
        pause: micros(rng, if scenario.crowded { 500 } else { 8_000 }),
        patience,
        kind,
    }
}

/// Low numbers are drawn more often.
fn skewed(rng: &mut Rng, n: u64) -> u64 {
    let first = rng.below(n);
    rng.below(first + 1)
}
