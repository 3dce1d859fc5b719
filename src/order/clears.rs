//! Clears: one stamp per prefix that hides everything written at or before it.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::backend::Scope;
use crate::planted::{Plant, planted};
use crate::sync::{AtomicU64, Ordering};
use crate::value::Stamp;

/// Past this many prefixes, a further one is folded into "everything": the 4,097th prefix that is cleared clears all,
/// in every region, and the count begins anew. Memory stays bounded; the price is misses.
const MAX_PREFIXES: usize = 4096;

/// The clear stamps of a composition. Reads look here on every hit; one atomic load when there is nothing to hide.
#[derive(Debug, Default)]
pub(crate) struct Clears {
    newest: AtomicU64,
    marks: ArcSwap<Marks>,
}

#[derive(Debug, Default, Clone)]
struct Marks {
    all: Stamp,
    prefixes: HashMap<Arc<str>, Stamp>,
}

impl Clears {
    /// From now on, entries in `scope` stamped at or before `stamp` are absent.
    pub(crate) fn record(&self, scope: &Scope, stamp: Stamp) {
        self.marks.rcu(|marks| {
            let mut marks = Marks::clone(marks);
            match scope {
                Scope::Prefix(prefix)
                    if marks.prefixes.len() < MAX_PREFIXES || marks.prefixes.contains_key(prefix) =>
                {
                    let mark = marks.prefixes.entry(Arc::clone(prefix)).or_default();
                    *mark = stamp.max(*mark);
                }
                _ => {
                    marks.all = stamp.max(marks.all);
                    marks.prefixes.retain(|_, mark| *mark > stamp);
                }
            }
            marks
        });
        // After the marks: whoever sees this sees them. The clear returns only after both.
        self.newest.fetch_max(stamp.time, Ordering::SeqCst);
    }

    /// Whether a clear came after an entry with `stamp`, of whatever prefix: one load.
    #[inline]
    pub(crate) fn may_hide(&self, stamp: Stamp) -> bool {
        stamp.time <= self.newest.load(Ordering::Acquire)
    }

    /// Whether a clear hides an entry of `prefix` with `stamp`.
    pub(crate) fn hide(&self, prefix: &str, stamp: Stamp) -> bool {
        if !self.may_hide(stamp) || planted(Plant::ClearHidesNothing) {
            return false;
        }
        let marks = self.marks.load();
        // `<=` on the time alone: another process's entry of the same time is hidden too, which is the safe side.
        // No clear is no mark: an unstamped entry is older than every clear, but not cleared without one.
        let hides = |mark: &Stamp| mark.time > 0 && stamp.time <= mark.time;
        hides(&marks.all) || marks.prefixes.get(prefix).is_some_and(hides)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(time: u64) -> Stamp {
        Stamp { time, node: 1 }
    }

    #[test]
    fn a_clear_hides_what_is_older_in_its_scope_only() {
        let clears = Clears::default();
        clears.record(&Scope::Prefix("a".into()), stamp(10));
        assert!(clears.hide("a", stamp(10)));
        assert!(!clears.hide("a", stamp(11)));
        assert!(!clears.hide("b", stamp(1)));
        clears.record(&Scope::All, stamp(20));
        assert!(clears.hide("a", stamp(20)) && clears.hide("b", stamp(20)));
    }

    #[test]
    fn only_a_clear_hides_what_has_no_stamp() {
        let clears = Clears::default();
        assert!(!clears.hide("a", Stamp::ZERO));
        clears.record(&Scope::Prefix("a".into()), stamp(10));
        assert!(clears.hide("a", Stamp::ZERO) && !clears.hide("b", Stamp::ZERO));
        clears.record(&Scope::All, stamp(20));
        assert!(clears.hide("b", Stamp::ZERO));
    }

    #[test]
    fn an_older_clear_never_lowers_a_newer_one() {
        let clears = Clears::default();
        clears.record(&Scope::Prefix("a".into()), stamp(10));
        clears.record(&Scope::Prefix("a".into()), stamp(5));
        assert!(clears.hide("a", stamp(10)));
    }

    #[test]
    fn too_many_prefixes_fold_into_all() {
        let clears = Clears::default();
        for i in 0..=MAX_PREFIXES {
            clears.record(&Scope::Prefix(format!("p{i}").into()), stamp(i as u64 + 1));
        }
        assert!(clears.hide("p0", stamp(1)));
        assert!(clears.hide("never named", stamp(1)));
    }
}
