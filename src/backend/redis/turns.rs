//! Work that waits, and the one task that does it.
//!
//! Whoever adds work begins a turn, unless a task has it already. A turn ends with the last of the work, under the same
//! lock as whoever adds looks: nothing is left lying. A turn of an earlier opening of the backend may have ended with its
//! runtime, and keeps nobody from beginning another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What waits.
pub(super) trait Waiting: Default {
    /// One piece of it.
    type Piece;

    /// What is to be done next. It waits until it is taken out.
    fn next(&self) -> Option<Self::Piece>;
}

#[derive(Default)]
pub(super) struct Turns<W>(Mutex<State<W>>);

#[derive(Default)]
struct State<W> {
    waiting: W,
    /// The turns so far.
    count: u64,
    /// The number of the turn that goes on, and the opening under which it began.
    running: Option<(u64, u64)>,
}

impl<W: Waiting> Turns<W> {
    /// Looks at what waits, or changes it.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut W) -> T) -> T {
        look(&mut self.state().waiting)
    }

    /// A turn under this opening, unless nothing waits or someone is at it.
    pub(super) fn begin(self: &Arc<Self>, opening: u64) -> Option<Turn<W>> {
        let mut state = self.state();
        if state.waiting.next().is_none() || state.running.is_some_and(|(_, under)| under == opening) {
            return None;
        }
        state.count += 1;
        state.running = Some((state.count, opening));
        Some(Turn { turns: Arc::downgrade(self), number: state.count })
    }

    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Someone at work; however it ends, another may begin. Keeps the work alive no longer than its owner does.
pub(super) struct Turn<W: Waiting> {
    turns: Weak<Turns<W>>,
    number: u64,
}

impl<W: Waiting> Turn<W> {
    /// What is to be done next; `None`: the turn is over.
    pub(super) fn next(&self) -> Option<W::Piece> {
        let turns = self.turns.upgrade()?;
        let mut state = turns.state();
        if state.running.is_none_or(|(number, _)| number != self.number) {
            return None;
        }
        let next = state.waiting.next();
        if next.is_none() {
            state.running = None;
        }
        next
    }
}

impl<W: Waiting> Drop for Turn<W> {
    fn drop(&mut self) {
        let Some(turns) = self.turns.upgrade() else { return };
        turns.state().running.take_if(|(number, _)| *number == self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Waiting for Vec<u32> {
        type Piece = u32;

        fn next(&self) -> Option<u32> {
            self.first().copied()
        }
    }

    #[test]
    fn one_is_at_it_until_nothing_waits() {
        let turns = Arc::new(Turns::<Vec<u32>>::default());
        assert!(turns.begin(1).is_none(), "nothing waits");
        turns.with(|waiting| waiting.push(7));
        let turn = turns.begin(1).unwrap();
        assert!(turns.begin(1).is_none(), "someone is at it");
        assert_eq!((turn.next(), turn.next()), (Some(7), Some(7)), "until it is taken out");
        turns.with(Vec::clear);
        assert_eq!(turn.next(), None);
        turns.with(|waiting| waiting.push(8));
        assert_eq!(turn.next(), None, "it is over");
        assert!(turns.begin(1).is_some(), "the next turn");
    }

    #[test]
    fn a_turn_that_is_dropped_or_of_an_earlier_opening_is_in_nobodys_way() {
        let turns = Arc::new(Turns::<Vec<u32>>::default());
        turns.with(|waiting| waiting.push(7));
        drop(turns.begin(1).unwrap());
        let earlier = turns.begin(1).unwrap();
        let later = turns.begin(2).unwrap();
        assert_eq!((earlier.next(), later.next()), (None, Some(7)));
        drop(earlier);
        assert!(turns.begin(2).is_none(), "its end is not the other's");
    }
}
