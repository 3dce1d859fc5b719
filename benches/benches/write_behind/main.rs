//! Writing behind beside writing through, over a real Redis server: Zipf 0.99 over 100,000 keys.

mod journal;
mod redis;
mod zipf;

use std::process::ExitCode;

use tierkeep_benches::Measure;

const MEASURES: &[&[Measure]] = &[redis::MEASURES, journal::MEASURES];

fn main() -> ExitCode {
    tierkeep_benches::main(MEASURES, &[])
}
