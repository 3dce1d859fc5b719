//! The model: what a map with expiry would hold. Calls take (virtual) time, so around an expiry both answers are right.

use std::collections::HashMap;

use tierkeep::Timestamp;

use super::Place;

/// Regions with the life of their entries in ms.
pub(super) const LIVES: [Option<u64>; 2] = [Some(80), None];
pub(super) const REGIONS: usize = LIVES.len();

/// When a call began and when it had returned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) began: Timestamp,
    pub(super) ended: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    value: u64,
    /// Live for sure before the first, dead for sure from the second on.
    dies: Option<Span>,
}

#[derive(Debug, Default)]
pub(super) struct Map {
    slots: HashMap<Place, Slot>,
    /// Places where a tier may still keep a copy that nobody can read: expired or cleared.
    remains: HashMap<Place, ()>,
}

/// What a read may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Absent,
    Live(u64),
    Either(u64),
}

impl Expected {
    pub(super) fn allows(self, answer: Option<u64>) -> bool {
        match self {
            Self::Absent => answer.is_none(),
            Self::Live(value) => answer == Some(value),
            Self::Either(value) => answer.is_none_or(|answer| answer == value),
        }
    }
}

impl Map {
    pub(super) fn set(&mut self, place: Place, value: u64, life: Option<u64>, span: Span) {
        let at = |time: Timestamp, life| Timestamp::from_millis(time.as_millis() + life);
        let dies = life.map(|life| Span { began: at(span.began, life), ended: at(span.ended, life) });
        self.slots.insert(place, Slot { value, dies });
    }

    pub(super) fn read(&self, place: Place, span: Span) -> Expected {
        match self.slots.get(&place) {
            None => Expected::Absent,
            Some(slot) => match slot.dies {
                Some(dies) if span.began >= dies.ended => Expected::Absent,
                Some(dies) if span.ended >= dies.began => Expected::Either(slot.value),
                _ => Expected::Live(slot.value),
            },
        }
    }

    /// Whether a removal may answer so.
    pub(super) fn remove(&mut self, place: Place, removed: bool, span: Span) -> bool {
        let fits = match self.read(place, span) {
            Expected::Live(_) => removed,
            Expected::Either(_) => true,
            // Swept or not: an expired copy counts as one.
            Expected::Absent => {
                !removed || self.slots.contains_key(&place) || self.remains.contains_key(&place)
            }
        };
        self.slots.remove(&place);
        self.remains.remove(&place);
        fits
    }

    pub(super) fn clear(&mut self, region: Option<usize>) {
        for (place, _) in self.slots.extract_if(|place, _| region.is_none_or(|region| place.0 == region)) {
            self.remains.insert(place, ());
        }
    }
}
