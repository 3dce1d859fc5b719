//! Several sides doing the same work, one after the other, again and again.

use std::time::Duration;

use crate::measure::Setting;
use crate::report::Unit;

/// What one side is made of.
type Round<'a> = Box<dyn FnMut(u64) -> f64 + 'a>;

/// Runs its sides A B A B …, so that whatever else the machine does falls on all of them, and takes the medians.
///
/// The first round of every side is not counted: it warms caches and finds out how many operations fill a round.
pub struct Contest<'a> {
    unit: Unit,
    rounds: usize,
    round: Duration,
    sides: Vec<Side<'a>>,
}

struct Side<'a> {
    label: &'static str,
    round: Round<'a>,
    /// Whether the harness chooses how many operations a round has.
    calibrated: bool,
    operations: u64,
    samples: Vec<f64>,
}

/// What a side came to.
#[derive(Debug, Clone)]
pub struct Sampled {
    /// The side's name.
    pub label: &'static str,
    /// The median of its rounds, in the contest's unit.
    pub median: f64,
    /// The least and the greatest of its rounds.
    pub range: (f64, f64),
}

impl<'a> Contest<'a> {
    /// A contest in `unit`, with as many rounds as the command line asks for.
    pub fn new(setting: &Setting, unit: Unit) -> Self {
        Self { unit, rounds: setting.rounds, round: setting.round, sides: Vec::new() }
    }

    /// Adds a side that does as many operations as it is told and says how long they took.
    #[must_use]
    pub fn timed(mut self, label: &'static str, mut round: impl FnMut(u64) -> Duration + 'a) -> Self {
        let unit = self.unit;
        let round = move |operations| unit.of(operations, round(operations));
        self.sides.push(Side::new(label, true, Box::new(round)));
        self
    }

    /// Adds a side whose rounds are always the same work, and that says itself what a round came to.
    #[must_use]
    pub fn fixed(mut self, label: &'static str, mut round: impl FnMut() -> f64 + 'a) -> Self {
        self.sides.push(Side::new(label, false, Box::new(move |_| round())));
        self
    }

    /// Lets a round last this long, for work that needs more than the default.
    #[must_use]
    pub fn round(mut self, round: Duration) -> Self {
        self.round = round;
        self
    }

    /// Runs this many rounds at most, for work so long or so even that more add nothing.
    #[must_use]
    pub fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = self.rounds.min(rounds);
        self
    }

    /// Runs all sides and returns what each came to, in the order in which they were added.
    pub fn run(mut self) -> Vec<Sampled> {
        for side in &mut self.sides {
            side.prepare(self.unit, self.round);
        }
        for round in 0..self.rounds {
            // Every other round runs backwards: what one side leaves in the caches does not always meet the same next.
            let mut order: Vec<usize> = (0..self.sides.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for side in order {
                let side = &mut self.sides[side];
                let sample = (side.round)(side.operations);
                side.samples.push(sample);
            }
        }
        self.sides.into_iter().map(Side::finish).collect()
    }
}

impl<'a> Side<'a> {
    fn new(label: &'static str, calibrated: bool, round: Round<'a>) -> Self {
        Self { label, round, calibrated, operations: 1, samples: Vec::new() }
    }

    /// Warms up; finds how many operations fill a round.
    fn prepare(&mut self, unit: Unit, round: Duration) {
        if !self.calibrated {
            (self.round)(1);
            return;
        }
        let mut operations = 64;
        loop {
            let took = unit.time(operations, (self.round)(operations));
            if took * 4 >= round {
                let scale = round.as_secs_f64() / took.as_secs_f64();
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "a number of operations between 16 and some billions"
                )]
                let operations = (operations as f64 * scale) as u64;
                self.operations = operations.max(16);
                return;
            }
            operations *= 4;
        }
    }

    fn finish(self) -> Sampled {
        Sampled::of(self.label, self.samples)
    }
}

impl Sampled {
    /// What a side with these samples came to.
    ///
    /// # Panics
    /// Without a sample.
    pub fn of(label: &'static str, mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let range = (samples[0], samples[samples.len() - 1]);
        Self { label, median: median(&samples), range }
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn sides_take_turns_and_the_median_is_taken() {
        let turns = RefCell::new(String::new());
        let setting = Setting { rounds: 4, ..Setting::default() };
        let mut samples = [100.0, 4.0, 1.0, 3.0, 2.0].into_iter();
        let sides = Contest::new(&setting, Unit::Nanos)
            .fixed("a", || {
                turns.borrow_mut().push('a');
                samples.next().unwrap()
            })
            .fixed("b", || {
                turns.borrow_mut().push('b');
                7.0
            })
            .run();
        assert_eq!(*turns.borrow(), "ababbaabba", "one round to warm up, then four");
        assert_eq!(sides[0].median, 2.5, "the warming round does not count");
        assert_eq!(sides[0].range, (1.0, 4.0));
        assert_eq!(sides[1].median, 7.0);
    }

    #[test]
    fn a_round_holds_as_many_operations_as_fill_it() {
        let setting = Setting { rounds: 1, round: Duration::from_millis(10) };
        let told = RefCell::new(Vec::new());
        let sides = Contest::new(&setting, Unit::Nanos)
            .timed("a", |operations| {
                told.borrow_mut().push(operations);
                Duration::from_micros(operations)
            })
            .run();
        assert_eq!(told.borrow().last(), Some(&10_000));
        assert_eq!(sides[0].median, 1_000.0, "nanoseconds per operation");
    }
}
