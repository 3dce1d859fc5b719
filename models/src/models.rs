//! The models.

use std::sync::Arc as StdArc;

use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::backend::Scope;
use crate::order::clears::Clears;
use crate::order::clock::HybridClock;
use crate::order::fence::Fences;
use crate::order::gate::Gate;
use crate::planted::{Plant, plant};
use crate::runtime::RuntimeHandle;
use crate::value::{Stamp, Timestamp};

/// A few threads, and what must hold however they run.
pub(crate) struct Model {
    pub(crate) name: &'static str,
    /// Whether nothing is taken out.
    pub(crate) sound: bool,
    /// Prepares the thread on which it is explored; the result is one play.
    pub(crate) play: fn() -> fn(),
}

pub(crate) const ALL: [Model; 18] = [
    Model { name: "a refill against a write", sound: true, play: || || refill_against_write(false) },
    Model { name: "a refill against a clear", sound: true, play: || || refill_against_write(true) },
    Model { name: "two writers of a stripe", sound: true, play: || two_writers },
    Model { name: "a clear that has returned", sound: true, play: || || clear_returned(false) },
    Model { name: "two clears", sound: true, play: || two_clears },
    Model { name: "numbers", sound: true, play: || numbers },
    Model { name: "announce, number, arrive", sound: true, play: || || two_mutations(true) },
    Model { name: "a mutation that was not confirmed", sound: true, play: || unconfirmed },
    Model { name: "a route published by two", sound: true, play: || || route_published_by_two(true) },
    Model {
        name: "a route of a health known before",
        sound: false,
        play: || || route_published_by_two(false),
    },
    Model { name: "a quarantine that ends", sound: true, play: || || quarantine_ends(true) },
    Model {
        name: "NoFence",
        sound: false,
        play: || {
            plant(Plant::NoFence);
            || refill_against_write(false)
        },
    },
    Model {
        name: "FenceBusy",
        sound: false,
        play: || {
            plant(Plant::FenceBusy);
            || refill_against_write(false)
        },
    },
    Model {
        name: "FenceBusy, clear",
        sound: false,
        play: || {
            plant(Plant::FenceBusy);
            || refill_against_write(true)
        },
    },
    Model {
        name: "ClearHidesNothing",
        sound: false,
        play: || {
            plant(Plant::ClearHidesNothing);
            || clear_returned(false)
        },
    },
    Model { name: "a clear told before it is recorded", sound: false, play: || || clear_returned(true) },
    Model { name: "numbered before announced", sound: false, play: || || two_mutations(false) },
    Model { name: "the gate asked after the store", sound: false, play: || || quarantine_ends(false) },
];

const OLD: u64 = 1;
const NEW: u64 = 2;

/// A reader brings the value below up, while a writer (or a clear of everything) replaces it.
fn refill_against_write(clear: bool) {
    let fences = StdArc::new(Fences::new(1));
    let below = Arc::new(AtomicU64::new(OLD));
    // The upper tier, whose actor does one thing at a time. 0: nothing.
    let above = Arc::new(Mutex::new(0));
    let reader = {
        let (fences, below, above) = (StdArc::clone(&fences), Arc::clone(&below), Arc::clone(&above));
        thread::spawn(move || {
            let Some(fence) = fences.take(7) else { return };
            let value = below.load(Ordering::Relaxed);
            let mut above = above.lock().unwrap();
            if fences.holds(fence) {
                *above = value;
            }
        })
    };
    let busy = if clear { (Some(fences.begin_all()), None) } else { (None, Some(fences.begin(7))) };
    below.store(NEW, Ordering::Relaxed);
    *above.lock().unwrap() = NEW;
    drop(busy);
    // The writer has returned.
    assert_ne!(*above.lock().unwrap(), OLD, "the old value came back");
    reader.join().unwrap();
    assert_ne!(*above.lock().unwrap(), OLD, "the old value came back");
}

/// A stripe is busy until the last of two writers has settled, and a fence from before never holds again.
fn two_writers() {
    let fences = StdArc::new(Fences::new(1));
    let before = fences.take(7).expect("nothing is under way");
    let writer = {
        let fences = StdArc::clone(&fences);
        thread::spawn(move || {
            let busy = fences.begin(7);
            // A tier takes longer than the caller's guard is held.
            fences.hold(7);
            drop(busy);
            assert!(fences.take(7).is_none(), "taken while busy");
            fences.release(7);
        })
    };
    let busy = fences.begin(7);
    assert!(fences.take(7).is_none(), "taken while busy");
    assert!(!fences.holds(before));
    drop(busy);
    writer.join().unwrap();
    assert!(!fences.holds(before));
    let after = fences.take(7).expect("both have settled");
    assert!(fences.holds(after));
}

/// Once a clear has returned, what it covers is hidden from everyone who can know.
fn clear_returned(told_early: bool) {
    let clears = Arc::new(Clears::default());
    let returned = Arc::new(AtomicBool::new(false));
    let reader = {
        let (clears, returned) = (Arc::clone(&clears), Arc::clone(&returned));
        thread::spawn(move || {
            if returned.load(Ordering::Acquire) {
                assert!(clears.hide("a", stamp(5)), "shown after the clear had returned");
            }
            assert!(!clears.hide("b", stamp(5)), "another region is not concerned");
            assert!(!clears.hide("a", stamp(11)), "a newer entry is not concerned");
        })
    };
    if told_early {
        returned.store(true, Ordering::Release);
    }
    clears.record(&Scope::Prefix("a".into()), stamp(10));
    returned.store(true, Ordering::Release);
    reader.join().unwrap();
}

/// Two clears at once: neither undoes the other.
fn two_clears() {
    let clears = Arc::new(Clears::default());
    let other = {
        let clears = Arc::clone(&clears);
        thread::spawn(move || {
            clears.record(&Scope::Prefix("a".into()), stamp(10));
            assert!(clears.hide("a", stamp(10)));
        })
    };
    clears.record(&Scope::All, stamp(20));
    assert!(clears.hide("a", stamp(20)) && clears.hide("b", stamp(1)));
    other.join().unwrap();
    assert!(clears.hide("a", stamp(20)) && !clears.hide("a", stamp(21)));
}

/// Numbers are never drawn twice, grow, and pass what was observed, whatever the wall clock says.
fn numbers() {
    let clock = Arc::new(HybridClock::new(&RuntimeHandle));
    let other = {
        let clock = Arc::clone(&clock);
        thread::spawn(move || {
            let first = clock.mint(Timestamp(1));
            clock.observe(stamp(1 << 17), Timestamp(1));
            let second = clock.mint(Timestamp(0));
            assert!(second > first && second.time > 1 << 17);
            [first, second]
        })
    };
    let first = clock.mint(Timestamp(0));
    let second = clock.mint(Timestamp(1));
    assert!(second > first);
    let mut all = other.join().unwrap().to_vec();
    all.extend([first, second]);
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "a number was drawn twice");
}

/// One key of the ledger: who has announced a mutation, and the newest settled. Forgotten when nobody is left.
#[derive(Default)]
struct Ledger {
    users: u32,
    settled: u64,
    value: u64,
}

impl Ledger {
    fn arrive(&mut self, number: u64) {
        if number > self.settled {
            self.settled = number;
            self.value = number;
        }
        self.users = self.users.saturating_sub(1);
        if self.users == 0 {
            self.settled = 0;
        }
    }
}

/// Two mutations of a key: the newer one stays, in whatever order they arrive.
fn two_mutations(announced_first: bool) {
    let clock = Arc::new(HybridClock::new(&RuntimeHandle));
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mutate = {
        let (clock, ledger) = (Arc::clone(&clock), Arc::clone(&ledger));
        move || {
            if announced_first {
                ledger.lock().unwrap().users += 1;
            }
            let number = clock.mint(Timestamp(1)).time;
            if !announced_first {
                ledger.lock().unwrap().users += 1;
            }
            ledger.lock().unwrap().arrive(number);
            number
        }
    };
    let other = thread::spawn(mutate.clone());
    let mine = mutate();
    let newest = mine.max(other.join().unwrap());
    assert_eq!(ledger.lock().unwrap().value, newest, "the older mutation won");
}

/// A mutation that returns unconfirmed has closed the gate for everyone who can know that it returned.
fn unconfirmed() {
    let gate = Arc::new(Gate::open());
    let ledger = Arc::new(Mutex::new(0_usize));
    let returned = Arc::new(AtomicBool::new(false));
    let reader = {
        let (gate, ledger, returned) = (Arc::clone(&gate), Arc::clone(&ledger), Arc::clone(&returned));
        thread::spawn(move || {
            if returned.load(Ordering::Acquire) {
                assert!(!gate.is_open() && *ledger.lock().unwrap() == 1, "the old value is shown");
            }
        })
    };
    {
        let mut quarantined = ledger.lock().unwrap();
        *quarantined = 1;
        gate.set(true, false);
    }
    returned.store(true, Ordering::Release);
    reader.join().unwrap();
}

/// A repair rewrites the store and opens the gate; a reader that finds it open must not have the old value.
fn quarantine_ends(asked_first: bool) {
    let gate = Arc::new(Gate::open());
    gate.set(true, false);
    let ledger = Arc::new(Mutex::new(1_usize));
    let store = Arc::new(AtomicU64::new(OLD));
    let reader = {
        let (gate, ledger, store) = (Arc::clone(&gate), Arc::clone(&ledger), Arc::clone(&store));
        thread::spawn(move || {
            let blocked = || !gate.is_open() && *ledger.lock().unwrap() > 0;
            let (is_blocked, value) = if asked_first {
                let is_blocked = blocked();
                (is_blocked, store.load(Ordering::Relaxed))
            } else {
                let value = store.load(Ordering::Relaxed);
                (blocked(), value)
            };
            assert!(is_blocked || value == NEW, "the old value was read");
        })
    };
    store.store(NEW, Ordering::Relaxed);
    {
        let mut quarantined = ledger.lock().unwrap();
        *quarantined = 0;
        gate.set(false, false);
    }
    reader.join().unwrap();
}

/// The supervisor and a tier's report publish the route at once, each as `Engine::publish_route` does: read the route,
/// make the next one of the tiers' health, swap it in or begin again. The last route must tell the last health. The
/// swap itself is arc-swap's; here it is one word.
fn route_published_by_two(health_within: bool) {
    let publish = move |health: &AtomicU64, route: &AtomicU64| {
        let before = health.load(Ordering::Acquire);
        let mut old = route.load(Ordering::Acquire);
        loop {
            let serving = if health_within { health.load(Ordering::Acquire) } else { before };
            let next = (old / 2 + 1) * 2 + serving;
            match route.compare_exchange(old, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(newer) => old = newer,
            }
        }
    };
    let (health, route) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let other = {
        let (health, route) = (Arc::clone(&health), Arc::clone(&route));
        thread::spawn(move || publish(&health, &route))
    };
    health.store(1, Ordering::Release);
    publish(&health, &route);
    other.join().unwrap();
    assert_eq!(route.load(Ordering::Acquire) % 2, 1, "the route takes a tier that is up for down");
}

fn stamp(time: u64) -> Stamp {
    Stamp { time, node: 1 }
}
