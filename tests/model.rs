//! Random sequences of calls on the public API against a map with expiry times, in virtual time. A failing sequence is
//! shrunk to a short one.

#[path = "model/map.rs"]
mod map;
#[path = "model/player.rs"]
mod player;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tierkeep::composition::{ReadPolicy, WritePolicy};
use tierkeep::{Plant, plant};

/// A call, or a while without any. Keys are few, so that calls meet.
#[derive(Debug, Clone)]
enum Op {
    Set(Place),
    SetFor(Place, u64),
    SetMany(usize, Vec<u8>),
    Get(Place),
    TryGet(Place),
    GetMany(usize, Vec<u8>),
    Contains(Place),
    Load(Place),
    LoadFails(Place),
    Remove(Place),
    Clear(usize),
    ClearAll,
    /// Milliseconds.
    Advance(u64),
}

/// A region by its index, and a key.
type Place = (usize, u8);

/// Which cache. Its lowest tier keeps everything, so a live value is always found.
#[derive(Debug, Clone)]
struct Shape {
    seed: u64,
    /// Entries of the memory tier.
    memory: usize,
    /// Its cap on the life of entries, in ms.
    cap: Option<u64>,
    /// A synchronous store between memory and the lowest tier.
    middle: bool,
    read: ReadPolicy,
    write: WritePolicy,
}

fn place() -> impl Strategy<Value = Place> {
    (0..map::REGIONS, 0..5_u8)
}

fn op() -> impl Strategy<Value = Op> {
    let keys = || proptest::collection::vec(0..5_u8, 0..4);
    prop_oneof![
        6 => place().prop_map(Op::Set),
        3 => (place(), 1..200_u64).prop_map(|(place, ttl)| Op::SetFor(place, ttl)),
        2 => (0..map::REGIONS, keys()).prop_map(|(region, keys)| Op::SetMany(region, keys)),
        6 => place().prop_map(Op::Get),
        2 => place().prop_map(Op::TryGet),
        2 => (0..map::REGIONS, keys()).prop_map(|(region, keys)| Op::GetMany(region, keys)),
        3 => place().prop_map(Op::Contains),
        3 => place().prop_map(Op::Load),
        1 => place().prop_map(Op::LoadFails),
        3 => place().prop_map(Op::Remove),
        1 => (0..map::REGIONS).prop_map(Op::Clear),
        1 => Just(Op::ClearAll),
        4 => prop_oneof![0..30_u64, 0..300_u64].prop_map(Op::Advance),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let read = prop_oneof![Just(ReadPolicy::Sequential), Just(ReadPolicy::Race), Just(ReadPolicy::Parallel)];
    // Not `Race`: a loser is in quarantine until it confirms, and the winner may evict before.
    let write = prop_oneof![
        Just(WritePolicy::OptimisticParallel { require_all: false }),
        Just(WritePolicy::OptimisticParallel { require_all: true }),
        Just(WritePolicy::Sequential),
        Just(WritePolicy::WriteAround),
    ];
    let memory = prop_oneof![Just(1_usize), Just(3), Just(100)];
    let cap = proptest::option::of(1..60_u64);
    (any::<u64>(), memory, cap, any::<bool>(), read, write)
        .prop_map(|(seed, memory, cap, middle, read, write)| Shape { seed, memory, cap, middle, read, write })
}

/// Plays random sequences; the shrunk one that fails, if one does.
fn search() -> Result<(), String> {
    // Nothing is written into the source tree; the shrunk sequence is printed whole.
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let sequences = (shape(), proptest::collection::vec(op(), 1..60));
    let found = TestRunner::new(config).run(&sequences, |(shape, ops)| player::play(&shape, &ops));
    found.map_err(|failure| failure.to_string())
}

#[test]
fn a_cache_does_what_a_map_with_expiry_does() {
    if let Err(failure) = search() {
        panic!("{failure}");
    }
}

/// Those that show without concurrency and without faults.
#[test]
fn planted_bugs_are_noticed() {
    for bug in [Plant::ClearHidesNothing, Plant::TtlInSeconds] {
        plant(Some(bug));
        let found = search();
        plant(None);
        println!("{bug:?}: {found:?}");
        assert!(found.is_err(), "{bug:?} was not noticed");
    }
}
