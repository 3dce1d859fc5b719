//! Looking for a shorter workload that is still wrong.

use super::scenario::{Scenario, Step};
use super::world::run;

/// The shortest workload found, by leaving out ever smaller runs of steps, that still gives a violation, within
/// `attempts` plays. The scenario itself if nothing can be left out.
pub fn shrink(scenario: &Scenario, attempts: usize) -> Scenario {
    let mut best = scenario.clone();
    let mut left = attempts;
    let mut piece = best.steps.len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        let mut shorter = false;
        while from < best.steps.len() && left > 0 {
            left -= 1;
            let steps: Vec<Step> = best
                .steps
                .iter()
                .enumerate()
                .filter(|(index, _)| !(from..from + piece).contains(index))
                .map(|(_, step)| step.clone())
                .collect();
            let candidate = Scenario { steps, ..best.clone() };
            if run(&candidate).violations.is_empty() {
                from += piece;
            } else {
                best = candidate;
                shorter = true;
            }
        }
        if left == 0 || (piece == 1 && !shorter) {
            return best;
        }
        piece = piece.div_ceil(2).max(1);
    }
}
