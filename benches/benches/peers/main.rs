//! Tierkeep beside its peers: the same work on both sides, in turns. `benches/README.md` says what each measure does.

mod archived;
mod dictionary;
mod floor;
mod hit;
mod hop;
mod lower;
mod memory;
mod probe;
mod redis;
mod replay;
mod scale;
mod set;

use std::process::ExitCode;

use tierkeep_benches::Measure;
use tierkeep_benches::process::Side;

/// Adding a measure: a file of its own above, and its line here.
const MEASURES: &[&[Measure]] = &[
    hit::MEASURES,
    floor::MEASURES,
    scale::MEASURES,
    set::MEASURES,
    lower::MEASURES,
    hop::MEASURES,
    replay::MEASURES,
    memory::MEASURES,
    probe::MEASURES,
    redis::MEASURES,
    archived::MEASURES,
    dictionary::MEASURES,
];

/// What some measures run in processes of their own.
const SIDES: &[&[Side]] = &[memory::SIDES];

fn main() -> ExitCode {
    tierkeep_benches::main(MEASURES, SIDES)
}
