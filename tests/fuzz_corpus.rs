//! The fuzz targets' bodies on stable Rust: each over thousands of random inputs and mutations of meaningful ones. What
//! is read is the same each time; `cargo +nightly fuzz run` (see `fuzz/src/lib.rs`) goes on where this ends.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "public where it is a crate of its own")]
mod fuzz;

/// Inputs per body.
const INPUTS: usize = 20_000;

/// A small generator (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() % n.max(1) as u64).expect("less than `n`")
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.roll().to_le_bytes()[0]).collect()
    }

    /// Damages an input a little, as a store or an attacker might.
    fn mutate(&mut self, input: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(input.len());
            match self.below(6) {
                0 | 1 if !input.is_empty() => input[at] ^= 1 << self.below(8),
                // Numbers at which lengths and counts break.
                2 if !input.is_empty() => input[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                3 => input.truncate(at),
                4 => {
                    let more = self.bytes(9);
                    input.splice(at..at, more);
                }
                _ => {
                    let end = (at + self.below(16)).min(input.len());
                    let piece = input[at.min(end)..end].to_vec();
                    input.extend(piece);
                }
            }
        }
    }
}

fn run<T>(name: &str, body: fn(&[u8]) -> T) {
    let seeds = fuzz::seeds(name);
    seeds.iter().for_each(|seed| drop(body(seed)));
    let mut dice = Dice(seeds.len() as u64);
    for number in 0..INPUTS {
        let input = if number % 4 == 0 {
            dice.bytes(300)
        } else {
            let mut input = seeds[dice.below(seeds.len())].clone();
            dice.mutate(&mut input);
            input
        };
        if let Err(panic) = std::panic::catch_unwind(|| drop(body(&input))) {
            println!("`{name}`, input {number}: {input:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Else they would all end at the first check, and so would what is made of them.
#[test]
fn seeds_hold_values() {
    assert!(fuzz::seeds("frame").iter().all(|seed| fuzz::frame(seed)));
    assert!(fuzz::seeds("payload").iter().all(|seed| fuzz::payload(seed)));
}

#[test]
fn frames() {
    run("frame", fuzz::frame);
}

#[test]
fn payloads_of_sound_frames() {
    run("payload", fuzz::payload);
}

#[test]
fn keys() {
    run("key", fuzz::key);
}

#[test]
fn formats() {
    run("format", fuzz::format);
}

#[test]
fn compressors() {
    run("compressor", fuzz::compressor);
}
