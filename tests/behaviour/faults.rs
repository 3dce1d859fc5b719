//! A tier whose backend fails, below a memory tier, between two tiers and on top: the others answer in time, the
//! failure is told, nothing older comes back, and once healed the tier serves again by itself.

use std::time::Duration;

use futures_util::future::join_all;
use tierkeep::backend::Blocking;
use tierkeep::runtime::ActorState;
use tierkeep::{BreakerState, ErrorKind, TierInspection};
use tierkeep_sim::{Fault, FaultPlan, Faulty, Op};

use super::bench::{Bench, KEYS, Position, frail};
use super::store::{Store, Synchronous};
use super::world::{NEVER, World};

/// A way to fail, and what tells of it.
struct Failure {
    fault: Fault,
    /// For how long the store may apply what was given up.
    residual: Duration,
    /// What a read that meets it is told.
    kind: ErrorKind,
    /// What the tier's inspection shows for the reads.
    read: fn(&TierInspection) -> u64,
}

impl Failure {
    async fn run(&self, world: World) {
        Position::each(async |position| self.at(&world, position).await).await;
    }

    async fn at(&self, world: &World, position: Position) {
        let plan = FaultPlan::new(&world.runtime);
        // Past the deadline, within the residual time.
        plan.late(Duration::from_millis(70)..=Duration::from_millis(90));
        let store = Store::with_residual("store", self.residual);
        let faulty = Faulty::new(store.clone(), &world.runtime, &plan);
        let bench = Bench::new(world, position, &store, frail(faulty)).await;
        bench.serves().await;
        assert_eq!((self.read)(&bench.faulty()), 0);

        plan.rate(self.fault, 1.0);
        self.check(&bench).await;

        plan.heal();
        self.check_healed(&bench).await;
    }

    async fn check(&self, bench: &Bench) {
        bench.first_read(self.kind).await;
        assert!((self.read)(&bench.faulty()) > 0);
        let watch = bench.watch();
        bench.overwrite(2).await;
        bench.unconfirmed().await;
        let kinds = [self.kind, ErrorKind::Unavailable];
        bench.read_until("the breaker opens", &kinds, |tier| tier.breaker_opened > 0).await;
        bench.overwrite(3).await;
        watch.saw_nothing_old().await;
    }

    async fn check_healed(&self, bench: &Bench) {
        let watch = bench.watch();
        let began = bench.world.runtime.now();
        bench.recovers().await;
        // The outage was short, and so is the wait for the next repair.
        bench.world.assert_within(began, Duration::from_secs(2), "making the tier good");
        watch.saw_nothing_old().await;
        let tier = bench.faulty();
        // What fails is the backend, not the actor.
        assert_eq!((tier.restarts, tier.last_error, tier.state), (0, None, ActorState::Running));
        assert_eq!(tier.breaker, BreakerState::Closed);
    }
}

const BRIEF: Duration = Duration::from_millis(20);

pub(crate) async fn a_backend_that_errors(world: World) {
    let kind = ErrorKind::Backend;
    let failure = Failure { fault: Fault::Error, residual: BRIEF, kind, read: |tier| tier.reads.failed };
    failure.run(world).await;
}

pub(crate) async fn a_backend_that_panics_on_every_call(world: World) {
    let kind = ErrorKind::Panicked;
    let failure = Failure { fault: Fault::Panic, residual: BRIEF, kind, read: |tier| tier.reads.panicked };
    failure.run(world).await;
}

pub(crate) async fn a_backend_that_hangs_for_ever(world: World) {
    let kind = ErrorKind::Timeout;
    let failure = Failure { fault: Fault::Hang, residual: BRIEF, kind, read: |tier| tier.reads.timeouts };
    failure.run(world).await;
}

pub(crate) async fn a_backend_that_answers_late(world: World) {
    Position::each(async |position| {
        let plan = FaultPlan::new(&world.runtime);
        plan.late(Duration::from_millis(70)..=Duration::from_millis(90));
        let store = Store::with_residual("store", NEVER);
        let faulty = Faulty::new(store.clone(), &world.runtime, &plan);
        let bench = Bench::new(&world, position, &store, frail(faulty)).await;
        bench.serves().await;
        plan.rate(Fault::HangThenComplete, 1.0);
        let (kind, read) = (ErrorKind::Timeout, |tier: &TierInspection| tier.reads.timeouts);
        let failure = Failure { fault: Fault::HangThenComplete, residual: NEVER, kind, read };
        failure.check(&bench).await;
        world.until("a call returned late", || bench.faulty().writes.late > 0).await;
        plan.heal();
        failure.check_healed(&bench).await;
    })
    .await;
}

pub(crate) async fn a_backend_that_applies_long_after_it_was_given_up(world: World) {
    let (kind, residual) = (ErrorKind::Timeout, Duration::from_millis(300));
    let failure = Failure { fault: Fault::Zombie, residual, kind, read: |tier| tier.reads.timeouts };
    failure.run(world).await;
}

pub(crate) async fn a_backend_that_applies_but_reports_failure(world: World) {
    let kind = ErrorKind::Backend;
    let fault = Fault::AppliedButFails;
    Failure { fault, residual: BRIEF, kind, read: |tier| tier.reads.failed }.run(world).await;
}

pub(crate) async fn a_backend_that_hangs_on_the_blocking_pool(world: World) {
    // In the simulator a stall holds the whole pool, so the positions take turns.
    for position in [Position::Below, Position::Middle, Position::Top] {
        let store = Store::new("store");
        let stall = world.stall();
        let synchronous = Synchronous { store: store.clone(), stall: stall.clone() };
        let tier = frail(Blocking::new(synchronous).with_permits(2));
        let bench = Bench::new(&world, position, &store, tier).await;
        bench.serves().await;

        stall.close(true);
        bench.first_read(ErrorKind::Timeout).await;
        assert_eq!(bench.faulty().blocking_jobs, 1, "the job hangs, whatever became of its caller");
        let watch = bench.watch();
        bench.overwrite(2).await;
        let kinds = [ErrorKind::Timeout, ErrorKind::Unavailable];
        bench.read_until("the breaker opens", &kinds, |tier| tier.breaker_opened > 0).await;
        bench.overwrite(3).await;
        bench.is_quarantined(1).await;
        let tier = bench.faulty();
        assert!(tier.reads.timeouts > 0 && tier.quarantined == 6, "{tier:?}");
        assert!((1..=2).contains(&tier.blocking_jobs), "no more than its permits: {tier:?}");
        watch.saw_nothing_old().await;

        stall.close(false);
        bench.recovers().await;
        world.until("no job hangs", || bench.faulty().blocking_jobs == 0).await;
        assert_eq!(bench.faulty().restarts, 0);
    }
}

pub(crate) async fn a_backend_that_refuses_to_open(world: World) {
    Position::each(async |position| {
        let plan = FaultPlan::new(&world.runtime);
        plan.rate(Fault::RefuseOpen, 1.0);
        let store = Store::new("store");
        let faulty = Faulty::new(store.clone(), &world.runtime, &plan);
        // The cache is built all the same: the tier is not required.
        let bench = Bench::new(&world, position, &store, frail(faulty)).await;
        world.until("the tier is down", || bench.faulty().state == ActorState::Down).await;
        bench.first_read(ErrorKind::Unavailable).await;
        let watch = bench.watch();
        bench.overwrite(2).await;
        bench.is_quarantined(1).await;
        let tier = bench.faulty();
        assert!(tier.reads.unavailable > 0 && tier.quarantined == 6, "{tier:?}");
        assert_eq!(tier.restarts, 3, "as many as the policy allows");
        assert!(tier.last_error.unwrap().contains("injected RefuseOpen"));
        let tried = plan.calls(Op::Open);
        world.until("it is tried for ever", || plan.calls(Op::Open) > tried + 2).await;

        plan.heal();
        bench.recovers().await;
        watch.saw_nothing_old().await;
    })
    .await;
}

pub(crate) async fn a_full_mailbox(world: World) {
    Position::each(async |position| {
        let store = Store::new("store");
        // One call at a time, each for one key, and room for one message.
        let tier = frail(store.clone()).mailbox(1).concurrency(1).batch_keys(1).read_deadline(NEVER);
        let bench = Bench::new(&world, position, &store, tier).await;
        bench.serves().await;

        store.gate().close();
        for key in 0..KEYS {
            bench.subject.evict(key).await;
        }
        let readers: Vec<_> = (0..8 * KEYS)
            .map(|reader| {
                let subject = bench.subject.clone();
                world.runtime.spawn(async move { subject.read(reader % KEYS).await })
            })
            .collect();
        let overloaded = || bench.faulty().reads.overloaded;
        world.until("the mailbox is full", || overloaded() > 0).await;
        bench.overwrite(2).await;
        assert_eq!(bench.faulty().quarantined, 6, "none was confirmed in time");
        bench.unconfirmed().await;
        store.gate().open();
        // Every request is answered: by the tier, by another, or as a miss that says why.
        for lookup in join_all(readers).await {
            for error in lookup.unwrap().degraded {
                assert!(matches!(error.kind(), ErrorKind::Overloaded | ErrorKind::Unavailable), "{error:?}");
            }
        }
        bench.recovers().await;
        assert_eq!(bench.faulty().restarts, 0);
    })
    .await;
}

pub(crate) async fn an_overflowing_quarantine(world: World) {
    Position::each(async |position| {
        let plan = FaultPlan::new(&world.runtime);
        let store = Store::new("store").can_clear();
        let faulty = Faulty::new(store.clone(), &world.runtime, &plan);
        let bench = Bench::new(&world, position, &store, frail(faulty).quarantine(2)).await;
        bench.serves().await;
        plan.rate(Fault::Error, 1.0);
        plan.rate_on(Op::Clear, Fault::Error, 1.0);
        let watch = bench.watch();
        bench.overwrite(2).await;
        let tier = bench.faulty();
        assert!(tier.bypassed && tier.writes.bypasses == 1, "{tier:?}");
        bench.is_quarantined(KEYS - 1).await;

        plan.heal();
        world.until("the tier is cleared and serves again", || !bench.faulty().bypassed).await;
        // What it held is gone: it starts as an empty tier, once its breaker has closed.
        let mut version = 2;
        world
            .until_some("the tier takes what is written", async || {
                version += 1;
                let before = bench.faulty().writes.unconfirmed;
                bench.overwrite(version).await;
                let tier = bench.faulty();
                // What was refused while it was bypassed is in no quarantine.
                let taken = tier.writes.unconfirmed == before && tier.quarantined == 0;
                (taken && !tier.bypassed).then_some(())
            })
            .await;
        bench.recovers().await;
        watch.saw_nothing_old().await;
    })
    .await;
}
