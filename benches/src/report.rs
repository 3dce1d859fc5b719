//! What a measure came to: two figures and their ratio.

use std::time::Duration;

use serde::Serialize;

use crate::contest::Sampled;

/// What a figure counts, and which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Nanoseconds per operation; less is better.
    Nanos,
    /// Operations per second; more is better.
    PerSecond,
    /// Bytes, per entry or in all; less is better.
    Bytes,
    /// A part of one; more is better.
    Share,
    /// How many there are of something for each operation; less is better.
    PerOperation,
    /// How many operations there are for each of something; more is better.
    Times,
}

impl Unit {
    /// What `operations` in `time` come to.
    pub(crate) fn of(self, operations: u64, time: Duration) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let operations = operations as f64;
        match self {
            Self::PerSecond => operations / time.as_secs_f64(),
            _ => time.as_secs_f64() * 1e9 / operations,
        }
    }

    /// How long `operations` took that came to `figure`.
    pub(crate) fn time(self, operations: u64, figure: f64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let operations = operations as f64;
        Duration::from_secs_f64(match self {
            Self::PerSecond => operations / figure,
            _ => operations * figure / 1e9,
        })
    }

    fn ratio(self, ours: f64, theirs: f64) -> f64 {
        match self {
            Self::Nanos | Self::Bytes | Self::PerOperation => theirs / ours,
            Self::PerSecond | Self::Share | Self::Times => ours / theirs,
        }
    }

    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Nanos => "ns",
            Self::PerSecond => "/s",
            Self::Bytes => "B",
            Self::Share | Self::PerOperation | Self::Times => "",
        }
    }
}

/// Ours beside a peer's.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The measure's name.
    pub name: &'static str,
    /// What the figures count.
    pub unit: Unit,
    /// Our median.
    pub ours: f64,
    /// Our least and greatest round.
    pub ours_range: (f64, f64),
    /// Whose figure the other is.
    pub peer: String,
    /// Their median.
    pub theirs: f64,
    /// Their least and greatest round.
    pub theirs_range: (f64, f64),
    /// Above 1 is better for us.
    pub ratio: f64,
    /// The ratio to reach; none where the comparison only informs.
    pub goal: Option<f64>,
}

impl Comparison {
    /// Compares two sides of a contest; `goal` is the ratio to reach.
    pub fn new(name: &'static str, unit: Unit, goal: f64, ours: &Sampled, theirs: &Sampled) -> Self {
        Self {
            name,
            unit,
            ours: ours.median,
            ours_range: ours.range,
            peer: theirs.label.to_owned(),
            theirs: theirs.median,
            theirs_range: theirs.range,
            ratio: unit.ratio(ours.median, theirs.median),
            goal: Some(goal),
        }
    }

    /// As [`new`](Self::new), without a goal: the reader may want to know.
    pub fn informative(name: &'static str, unit: Unit, ours: &Sampled, theirs: &Sampled) -> Self {
        Self { goal: None, ..Self::new(name, unit, 0.0, ours, theirs) }
    }

    /// Whether the goal, if there is one, was reached.
    pub fn reached(&self) -> bool {
        self.goal.is_none_or(|goal| self.ratio >= goal)
    }
}
