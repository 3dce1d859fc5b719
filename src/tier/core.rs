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
use super::ledger::{Ledger, Refusal};
use super::message::{Change, Fill, Finished, Mutation, Open, ReadOp, Settled, Settlement};
use super::options::{Tier, TierOptions};
use super::outdated::Outdated;
use super::overruled::Overruled;
use super::quarantine::Repair;
use super::queue::{Job, Queue, Work};
use crate::backend::{Backend, Holds, Port, Scope};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{CacheKey, KeyProbe};
use crate::observe::{BypassCause, EventKind, Events, Outbox, Telling, TierMeter};
use crate::order::Order;
use crate::planted::{Plant, planted};
use crate::runtime::host::drop_quietly;
use crate::runtime::{ActorState, RuntimeHandle, panic_message};
use crate::sync::Apart;
use crate::value::{BackendLabel, DeleteStatus, Entry, Stamp};

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
    pub(super) queue: Mutex<Queue>,
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is changed in steps that do not panic; a poisoned lock is still consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            queue: Mutex::default(),
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

    // ---- reads

    /// What the key shows here instead of what the store holds, if a change of it is pending (`None`: ask the store), or
    /// why it may not be read now. To be asked *before* the store is read: between a later look and the read, a repair
    /// could lift the quarantine, or the change be applied, after the read had already seen the old value.
    pub(crate) fn shown(&self, key: &CacheKey) -> Result<Option<Change>> {
        if self.gate.is_open() || (planted(Plant::PortIgnoresQuarantine) && self.port.is_some()) {
            return Ok(None);
        }
        let mut quarantined = false;
        // Also while the tier is bypassed: what is pending is the newest of its key, whatever the store has missed.
        if self.behind.is_some() && !planted(Plant::PendingHidden) {
            let pending = {
                // Under one lock: a change that is accepted between two looks would lift the quarantine unseen.
                let ledger = lock(&self.ledger);
                quarantined = ledger.is_quarantined(key);
                ledger.pending_change(key)
            };
            if let Some((_, change)) = pending {
                return Ok(Some(change.raised(self.hidden.load(Ordering::Acquire))));
            }
        }
        let why = if self.gate.is_held() {
            "the tier is bypassed by an operator"
        } else if self.gate.is_bypassed() {
            "the tier is bypassed until it has been cleared: too many of its keys were in quarantine"
        } else if quarantined || lock(&self.ledger).is_quarantined(key) {
            "the key is in quarantine: the tier has not confirmed its last change"
        } else {
            return Ok(None);
        };
        Err(Error::new(ErrorKind::Unavailable, why))
    }

    /// Whether nothing at all is blocked or pending: one load.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.gate.is_open()
    }

    /// Whether an entry with these stamps is older than what the tier may have missed.
    #[inline]
    pub(crate) fn hides(&self, key: &KeyProbe<'_>, time: u64) -> bool {
        // The keys first: when there are too many, they are forgotten once `hidden` covers them.
        ((self.options.read_only || !self.authoritative) && self.overruled.hides(key, time))
            || self.covers(time)
    }

    #[inline]
    fn covers(&self, time: u64) -> bool {
        let hidden = self.hidden.load(Ordering::Acquire);
        // Zero hides nothing, not even what has no stamp.
        hidden > 0 && time <= hidden
    }

    /// Settles a mutation at a tier that is never written: what it holds of the key up to `stamp` is absent.
    pub(crate) fn overrule(&self, key: &CacheKey, stamp: Stamp) {
        let hide = |stamp: Stamp| {
            self.hidden.fetch_max(stamp.time, Ordering::SeqCst);
        };
        self.overruled.add(key, stamp, self.options.quarantine, hide);
    }

    /// The longest life of an entry here, now.
    pub(crate) fn ttl_cap(&self) -> Option<Duration> {
        let cap = self.options.ttl_cap;
        match self.fallback_cap {
            Some(fallback) if !self.told.load(Ordering::Relaxed) => {
                Some(cap.map_or(fallback, |cap| cap.min(fallback)))
            }
            _ => cap,
        }
    }

    /// Whether somebody tells what other processes write.
    #[cfg(feature = "backplane")]
    pub(crate) fn follow_backplane(&self, up: bool) {
        self.told.store(up, Ordering::Relaxed);
    }

    /// Counts an entry that was decoded, or could not be.
    pub(crate) fn note_decode<T>(&self, result: &Result<T>) {
        let ok = match result {
            Ok(_) => true,
            Err(error) => match error.kind() {
                ErrorKind::Decode | ErrorKind::TooLarge | ErrorKind::Panicked => false,
                // Says nothing about the entry.
                _ => return,
            },
        };
        if let Some(alarmed) = self.decodes.note(ok) {
            self.tell(if alarmed { EventKind::DecodeFailuresRose } else { EventKind::DecodeFailuresFell });
        }
    }

    /// Tells whoever listens. Under no lock.
    pub(crate) fn tell(&self, kind: EventKind) {
        self.outbox.note(kind);
        self.outbox.tell();
    }

    /// Takes a read into the queue. The actor sends it on when its mailbox has no more.
    pub(crate) fn enqueue_read(&self, read: ReadOp) {
        let pushed = lock(&self.queue).push_read(read);
        self.queued_read(pushed);
    }

    pub(super) fn queued_read(&self, pushed: std::result::Result<bool, ReadOp>) {
        match pushed {
            Ok(false) => {}
            Ok(true) => Counters::one(&self.counters.joined_reads),
            Err(read) => {
                let message = "too many reads of the key wait for the tier";
                read.answer(Err(Error::new(ErrorKind::Overloaded, message)));
            }
        }
    }

    // ---- mutations

    /// A mutation of `key` is about to draw its number: from now on this tier remembers what is settled for the key.
    pub(crate) fn announce(&self, key: &CacheKey) {
        lock(&self.ledger).announce(key);
    }

    /// A mutation of `key` drew its number: noted for a planted bug only.
    pub(crate) fn minted(&self, key: &CacheKey, stamp: Stamp) {
        if planted(Plant::DropMinted) {
            lock(&self.ledger).minted(key, stamp);
        }
    }

    /// A mutation reached the actor.
    pub(crate) fn arrive(self: &Arc<Self>, mutation: Mutation) {
        if let Some(job) = self.begin_arrived(mutation) {
            self.carry_out(job);
        }
    }

    /// Takes a mutation into the ledger; gives it back to be carried out, if it may be now.
    pub(super) fn begin_arrived(self: &Arc<Self>, mutation: Mutation) -> Option<Job> {
        let refused = self.refusal(&mutation);
        let begun = self.with_ledger(|ledger, done| ledger.arrive(mutation, refused, done));
        begun.map(|(mutation, attempt)| Job { work: Work::Mutation(mutation), attempt })
    }

    /// Applies a job through the port, or queues it for a call. Never under the ledger's lock: what a port displaces
    /// is dropped here, and its destructor is the user's. The attempt is the key's until the job is finished, so
    /// nothing else of the key comes between. What waited for it meanwhile is carried out next.
    pub(super) fn carry_out(self: &Arc<Self>, job: Job) {
        let Some(port) = &self.port else { return self.push_write(job) };
        let mut next = Some(job);
        while let Some(job) = next {
            // Two reads of a shared store may bring what another process replaced between them, in either order.
            let is_older = |entry: &Entry| {
                matches!(job.work, Work::Fill(_))
                    && port.get(&job.key().probe()).is_some_and(|held| held.meta.stamp > entry.meta.stamp)
                    && !planted(Plant::OlderFill)
            };
            let result = match job.entry() {
                Some(entry) if contained(|| is_older(entry)).unwrap_or(false) => Ok(Settlement::Superseded),
                entry => self.write_port(&**port, job.key(), entry),
            };
            next = self.conclude(job, result);
        }
    }

    /// Stores an entry through the port, or removes the key.
    pub(super) fn write_port(&self, port: &dyn Port, key: &CacheKey, entry: Option<&Entry>) -> Settled {
        let Some(entry) = entry else { return contained(|| removed(port.remove(key))) };
        let weight = entry.payload.weight();
        if weight > 0 {
            // Mostly nobody has weighed what stays in this process.
            Counters::add(&self.counters.bytes_written, weight as u64);
        }
        contained(|| {
            port.put(key.clone(), entry.clone());
            Settlement::Applied
        })
    }

    /// The caller's deadline passed, or nobody waits for this tier: the key is settled by quarantine, unless the
    /// mutation has just been settled otherwise.
    pub(crate) fn expire(self: &Arc<Self>, key: &CacheKey, stamp: Stamp, change: Change, open: &Open) {
        self.with_ledger(|ledger, done| {
            if open.is_open() {
                ledger.expire(key, (stamp, change), done);
            } else {
                ledger.dropped.push(change);
            }
        });
    }

    /// A mutation was dropped unsettled.
    pub(crate) fn lost(self: &Arc<Self>, mutation: &mut Mutation) {
        Counters::one(&self.counters.unconfirmed);
        self.with_ledger(|ledger, done| ledger.lost(mutation, done));
    }

    /// A planted bug: the mutation is gone as if it had never been.
    pub(crate) fn forget(&self, key: &CacheKey) {
        lock(&self.ledger).leave(key);
    }

    /// A fill reached the actor. It is void if a mutation of its stripe began since its fence was taken, and given up
    /// if one of its key is on its way or the key is in quarantine.
    pub(crate) fn fill(self: &Arc<Self>, fill: Fill) {
        if self.gate.is_bypassed() {
            return Counters::one(&self.counters.fills_dropped);
        }
        // Under the lock, so that no mutation of the key can be announced between the check and the attempt, which
        // later ones wait for.
        let begun = self.with_ledger(|ledger, _| {
            if self.order.fences.holds(fill.fence) { ledger.begin_fill(&fill.key) } else { None }
        });
        match begun {
            Some(attempt) => self.carry_out(Job { work: Work::Fill(fill), attempt }),
            None => Counters::one(&self.counters.fills_void),
        }
    }

    /// Why a mutation cannot be sent now, if it cannot.
    pub(super) fn refusal(&self, mutation: &Mutation) -> Option<Refusal> {
        if self.gate.is_bypassed() {
            let error = Error::new(ErrorKind::Unavailable, "the tier is bypassed until it has been cleared");
            return Some(Refusal::Bypassed(error));
        }
        // After the gate: whoever sees it open sees what was hidden before it opened. A mutation that was numbered
        // before the tier was cleared would be confirmed and never seen.
        if mutation.stamp().time <= self.hidden.load(Ordering::Acquire) {
            let error = Error::new(ErrorKind::Unavailable, "the tier was cleared after this had begun");
            // In a write-behind tier an older change may be in the store under a number past the clear.
            return Some(match self.behind {
                Some(_) => Refusal::Quarantine(error),
                None => Refusal::Bypassed(error),
            });
        }
        (self.runtime.now() >= mutation.deadline)
            .then(|| Refusal::Quarantine(super::ledger::timeout(mutation)))
    }

    /// Runs `change` under the ledger's lock, then does what follows from it: the gate, the answers, the repairs.
    pub(super) fn with_ledger<R>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Ledger, &mut Vec<Finished>) -> R,
    ) -> R {
        let mut done = Vec::new();
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
    fn set_gate(&self, ledger: &mut Ledger) -> bool {
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

    // ---- repair of the whole tier

    pub(crate) fn is_bypassed(&self) -> bool {
        self.gate.is_bypassed()
    }

    /// Whether an operator holds the tier in bypass.
    pub(super) fn is_held(&self) -> bool {
        self.gate.is_held()
    }

    /// Why the tier is bypassed, if it is.
    pub(crate) fn bypass_cause(&self) -> Option<BypassCause> {
        match (self.gate.is_held(), self.gate.is_bypassed()) {
            (true, _) => Some(BypassCause::Operator),
            (false, true) => Some(BypassCause::QuarantineOverflow),
            (false, false) => None,
        }
    }

    /// Bypasses the tier until it is told otherwise. Then it is made safe as after an overflow, and serves again.
    pub(crate) fn hold_bypass(self: &Arc<Self>, on: bool) {
        self.with_ledger(|_, _| {
            let was_bypassed = self.gate.is_bypassed();
            self.gate.hold(on);
            if on && !was_bypassed {
                self.outbox.note(EventKind::BypassBegan { by: BypassCause::Operator });
            }
        });
    }

    /// Whether nothing that was sent before could still be applied.
    pub(super) fn is_quiet(&self) -> bool {
        let is_writing = || self.port.is_some() && lock(&self.ledger).is_writing();
        self.calls.load(Ordering::SeqCst) == 0 && !lock(&self.queue).has_writes() && !is_writing()
    }

    /// Serves again, with everything up to `stamp` absent, unless an operator has bypassed the tier meanwhile.
    pub(super) fn lift_bypass(&self, stamp: Stamp) {
        if !planted(Plant::BypassHidesNothing) {
            self.hidden.fetch_max(stamp.time, Ordering::SeqCst);
        }
        {
            let mut ledger = lock(&self.ledger);
            if self.gate.is_held() {
                return;
            }
            self.gate.set(ledger.quarantined > 0, false);
            self.outbox.note(EventKind::BypassEnded);
            self.set_gate(&mut ledger);
        }
        self.outbox.tell();
        self.wake_behind();
    }

    /// Whether the repair task has something to do, now or later.
    pub(super) fn needs_repair(&self) -> bool {
        // What an operator holds in bypass is made good when it is let go.
        (self.gate.blocks() && !self.gate.is_held()) || !lock(&self.clears).is_empty()
    }

    /// Sends the repairs that can be sent: into the store's port, or as calls.
    pub(super) async fn send_repairs(self: &Arc<Self>) {
        let mut repairs = lock(&self.ledger).take_repairs(self.options.batch_keys);
        if repairs.is_empty() {
            return;
        }
        if self.keep_given_up().await {
            repairs = self.with_ledger(|ledger, _| ledger.still_wanted(repairs));
        }
        for repair in repairs {
            let Repair { attempt, .. } = repair;
            self.carry_out(Job { work: Work::Repair(repair), attempt });
        }
        self.pump();
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
