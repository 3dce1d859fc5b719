//! The lasting half of a tier: what survives every restart of its actor.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use event_listener::Event;
use futures_util::task::AtomicWaker;

use super::behind::{Backlog, Behind};
use super::breaker::{Breaker, BreakerState, Watch};
use super::counters::Counters;
use super::decodes::Decodes;
use super::gate::Gate;
use super::health::Health;
use super::ledger::Ledger;
use super::message::{Finished, Settlement};
use super::options::{Tier, TierOptions};
use super::outdated::Outdated;
use super::overruled::Overruled;
use super::queue::Queue;
use crate::backend::{Backend, Holds, Port, Scope};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::{BypassCause, EventKind, Events, Outbox, Telling, TierMeter};
use crate::order::Order;
use crate::runtime::host::drop_quietly;
use crate::runtime::{ActorState, RuntimeHandle, panic_message};
use crate::sync::Apart;
use crate::value::{BackendLabel, DeleteStatus, Stamp};

pub(crate) struct TierCore {
    pub(super) this: Weak<Self>,
    pub(crate) label: BackendLabel,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) port: Option<Arc<dyn Port>>,
    pub(crate) holds: Holds,
    pub(crate) options: TierOptions,
    pub(crate) runtime: RuntimeHandle,
    pub(crate) order: Arc<Order>,
    pub(crate) counters: Apart<Counters>,
    pub(crate) events: Arc<Events>,
    pub(super) outbox: Arc<Outbox>,
    pub(crate) meter: TierMeter,
    pub(crate) decodes: Decodes,
    /// Of a tier that is not written, or may lag behind: what it may no longer show.
    pub(crate) overruled: Overruled,
    /// Whether the store applies a change only if it holds nothing newer.
    pub(crate) compares: bool,
    /// Whether what is read here may be refilled above.
    pub(crate) authoritative: bool,
    /// Whether other processes read and write the store.
    pub(crate) shared: bool,
    /// Whether calls are begun by whoever asks for them.
    pub(crate) immediate: bool,
    pub(super) outdated: Outdated,
    /// The cap while nobody tells what other processes write, and whether somebody does.
    pub(crate) fallback_cap: Option<Duration>,
    pub(super) told: AtomicBool,
    pub(super) breaker: Breaker,
    pub(super) gate: Gate,
    /// Entries stamped at or before this are absent: what a bypassed tier may have missed.
    pub(super) hidden: AtomicU64,
    pub(super) ledger: Apart<Mutex<Ledger>>,
    pub(super) queue: Apart<Mutex<Queue>>,
    /// Woken when the queue has room again.
    pub(super) room: AtomicWaker,
    /// Calls that have not returned, late ones included.
    pub(super) calls: AtomicUsize,
    /// Whether callers may make calls themselves: while the actor runs.
    pub(super) open: AtomicBool,
    pub(super) repairing: AtomicBool,
    /// Told when the breaker closes, so that what is quarantined need not wait for the next round of repair.
    pub(super) healed: Event,
    /// Told when the core is dropped.
    pub(super) gone: Event,
    pub(super) retired: AtomicBool,
    /// Rounds of repair in a row in which something failed.
    pub(super) repair_streak: AtomicU32,
    /// Whether a repair has failed since the last round.
    pub(super) repair_failed: AtomicBool,
    /// Clears that the backend has not recorded yet.
    pub(super) clears: Mutex<Vec<(Scope, Stamp)>>,
    pub(super) health: Mutex<Health>,
    /// Of a write-behind tier.
    pub(crate) behind: Option<Box<Behind>>,
}

impl Drop for TierCore {
    fn drop(&mut self) {
        self.gone.notify(usize::MAX);
        self.tell_of_dropped_queue();
    }
}

impl TierCore {
    pub(crate) fn new(
        tier: Tier,
        runtime: &RuntimeHandle,
        order: &Arc<Order>,
        telling: &Telling,
    ) -> Arc<Self> {
        let events = &telling.events;
        let outbox = Outbox::new(events, &tier.label);
        let backlog = tier
            .write_behind
            .as_ref()
            .map(|behind| Box::new(Backlog::new(&tier.label, &behind.options, tier.options.batch_keys)));
        let behind = tier.write_behind.map(|behind| Box::new(Behind::new(behind.options, runtime, &outbox)));
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            breaker: Breaker::watched(tier.options.breaker, breaker_watch(&outbox)),
            outbox,
            events: Arc::clone(events),
            meter: telling.meter.tier(&tier.label),
            decodes: Decodes::new(tier.options.decode_alarm),
            overruled: Overruled::default(),
            compares: tier.backend.compares(),
            authoritative: tier.backend.authoritative(),
            shared: tier.backend.shared(),
            immediate: tier.backend.immediate() && tier.backend.holds() == Holds::Bytes,
            outdated: Outdated::default(),
            fallback_cap: tier.fallback_cap,
            told: AtomicBool::new(false),
            label: tier.label,
            port: tier.backend.port(),
            holds: tier.backend.holds(),
            ledger: Apart(Mutex::new(Ledger::new(
                tier.backend.port().is_some(),
                tier.backend.compares(),
                backlog,
            ))),
            behind,
            backend: tier.backend,
            options: tier.options,
            runtime: runtime.clone(),
            order: Arc::clone(order),
            counters: Apart::default(),
            gate: Gate::open(),
            hidden: AtomicU64::new(0),
            queue: Apart::default(),
            room: AtomicWaker::new(),
            calls: AtomicUsize::new(0),
            open: AtomicBool::new(false),
            repairing: AtomicBool::new(false),
            healed: Event::new(),
            gone: Event::new(),
            retired: AtomicBool::new(false),
            repair_streak: AtomicU32::new(0),
            repair_failed: AtomicBool::new(false),
            clears: Mutex::default(),
            health: Mutex::new(Health {
                state: ActorState::Starting,
                restarts: 0,
                last_error: None,
                last_failure: None,
            }),
        })
    }

    /// Tells whoever listens. Under no lock.
    pub(crate) fn tell(&self, kind: EventKind) {
        self.outbox.note(kind);
        self.outbox.tell();
    }

    /// Runs `change` under the ledger's lock, then does what follows from it: the gate, the answers, the repairs.
    pub(super) fn with_ledger<R>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Ledger, &mut Vec<Finished>) -> R,
    ) -> R {
        self.with_ledger_for(0, change)
    }

    /// The same for a change that is expected to let go of so many mutations.
    pub(super) fn with_ledger_for<R>(
        self: &Arc<Self>,
        mutations: usize,
        change: impl FnOnce(&mut Ledger, &mut Vec<Finished>) -> R,
    ) -> R {
        let mut done = Vec::with_capacity(mutations);
        let (result, blocked, dropped, effects) = {
            let mut ledger = lock(&self.ledger);
            let result = change(&mut ledger, &mut done);
            let mut blocked = self.set_gate(&mut ledger);
            if ledger.give_up_displaced(|| self.runtime.wall()) {
                blocked |= self.set_gate(&mut ledger);
            }
            let effects = ledger.backlog.as_mut().map(|backlog| std::mem::take(&mut backlog.effects));
            (result, blocked, std::mem::take(&mut ledger.dropped), effects)
        };
        drop_quietly(dropped);
        if let Some(effects) = effects {
            self.follow(effects);
        }
        self.outbox.tell();
        for finished in done {
            self.count(&finished);
            finished.answer();
        }
        if blocked && self.needs_repair() {
            self.wake_repair();
        }
        result
    }

    /// Brings the gate in line with the ledger, before the lock is released and anyone is told.
    pub(super) fn set_gate(&self, ledger: &mut Ledger) -> bool {
        let mut bypassed = self.gate.is_bypassed();
        if !bypassed && ledger.quarantined > self.options.quarantine {
            // Exact no longer: the whole tier reads as a miss until it answers again and a clear has been recorded.
            bypassed = true;
            Counters::one(&self.counters.bypasses);
            self.outbox.note(EventKind::BypassBegan { by: BypassCause::QuarantineOverflow });
        }
        ledger.bypassed = bypassed;
        if bypassed && ledger.quarantined > 0 {
            ledger.forget_quarantines();
        }
        self.gate.set(ledger.quarantined > 0, bypassed);
        if let Some(backlog) = &ledger.backlog {
            self.gate.set_pending(!backlog.order.is_empty());
        }
        bypassed || ledger.quarantined > 0
    }

    fn count(&self, finished: &Finished) {
        Counters::one(match finished.result() {
            // Counted by the queue, and again when it is applied.
            Ok(Settlement::Queued { .. }) => return,
            Ok(Settlement::Superseded) => &self.counters.superseded,
            // Counted as it was refused.
            Ok(Settlement::Outdated) => return,
            Ok(_) => &self.counters.applied,
            Err(_) => &self.counters.unconfirmed,
        });
    }

    /// The cache has been shut down: nothing more is written.
    pub(crate) fn retire(&self) {
        self.open_to_callers(false);
        self.retired.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    pub(super) fn downgrade(&self) -> Weak<Self> {
        Weak::clone(&self.this)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is changed in steps that do not panic; a poisoned lock is still consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn contained<R>(call: impl FnOnce() -> R) -> Result<R> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| backend_panic(&panic_message(&*panic)))
}

fn breaker_watch(outbox: &Arc<Outbox>) -> Watch {
    let (noting, telling) = (Arc::clone(outbox), Arc::clone(outbox));
    let note = move |state| {
        noting.note(match state {
            BreakerState::Closed => EventKind::BreakerClosed,
            BreakerState::Open => EventKind::BreakerOpened,
            BreakerState::HalfOpen => EventKind::BreakerHalfOpen,
        });
    };
    Watch { note: Box::new(note), tell: Box::new(move || telling.tell()) }
}

pub(super) fn backend_panic(message: &str) -> Error {
    Error::new(ErrorKind::Panicked, format!("the backend panicked: {message}"))
}

/// What a removal by call says: how many copies there were.
pub(super) fn removed(status: DeleteStatus) -> Settlement {
    Settlement::Removed(status)
}
