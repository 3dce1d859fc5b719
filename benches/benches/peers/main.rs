//! Tierkeep beside its peers: the same work on both sides, in turns. `benches/README.md` says what each measure does.

mod floor;
mod hit;
mod scale;
mod set;

use std::process::ExitCode;

use tierkeep_benches::Measure;

/// Adding a measure: a file of its own above, and its line here.
const MEASURES: &[&[Measure]] = &[hit::MEASURES, floor::MEASURES, scale::MEASURES, set::MEASURES];

fn main() -> ExitCode {
    tierkeep_benches::main(MEASURES, &[])
}
