//! With a backplane: what another process wrote shows at once, and after losses within a stated time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tierkeep::backplane::{
    Backplane, BackplaneInspection, BackplaneOptions, BackplaneState, DropCause, LocalBackplane, Subscription,
};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::write_behind::{ChannelLetters, DeadReason, WriteBehind};
use tierkeep::{
    BackendResult, BreakerOptions, Cache, Error, ErrorKind, EventKind, HealthCause, MemoryBackend, Plant,
    Raw, Region, Tier, plant,
};
use tierkeep_sim::{FaultPlan, Faulty, MapBackend, SimRuntime};

use crate::world::{Numbers, ms, under_seeds};

/// What a process can hear and say: a local backplane with a bad line.
#[derive(Clone)]
pub(crate) struct Line {
    hub: LocalBackplane,
    /// Of a thousand messages, how many do not reach this process.
    pub(crate) lossy: Arc<AtomicU64>,
    /// What this process publishes is lost on its way.
    pub(crate) mute: Arc<AtomicBool>,
    /// Subscriptions end at once.
    pub(crate) short: Arc<AtomicBool>,
    /// What this process publishes is refused.
    pub(crate) refusing: Arc<AtomicBool>,
    /// Nothing goes through, and it says so.
    pub(crate) away: Arc<AtomicBool>,
    /// For how many ms, at most, a message is held up.
    pub(crate) delay: Arc<AtomicU64>,
}

impl Line {
    pub(crate) fn to(hub: &LocalBackplane) -> Self {
        let (lossy, mute, away) = (Arc::default(), Arc::default(), Arc::default());
        let (short, refusing) = (Arc::default(), Arc::default());
        Self { hub: hub.clone(), lossy, mute, away, short, refusing, delay: Arc::default() }
    }
}

struct Hearing {
    line: Line,
    runtime: RuntimeHandle,
    messages: Box<dyn Subscription>,
}

#[async_trait]
impl Backplane for Line {
    async fn publish(&self, runtime: &RuntimeHandle, message: Raw) -> BackendResult<()> {
        if self.away.load(Ordering::Relaxed) || self.refusing.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Unavailable, "the line is down"));
        }
        let delay = self.delay.load(Ordering::Relaxed);
        runtime.sleep(ms(runtime.random() % (delay + 1))).await;
        if self.mute.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.hub.publish(runtime, message).await
    }

    async fn subscribe(&self, runtime: &RuntimeHandle) -> BackendResult<Box<dyn Subscription>> {
        if self.away.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Unavailable, "the line is down"));
        }
        let messages = self.hub.subscribe(runtime).await?;
        Ok(Box::new(Hearing { line: self.clone(), runtime: runtime.clone(), messages }))
    }
}

#[async_trait]
impl Subscription for Hearing {
    async fn next(&mut self) -> Option<Raw> {
        loop {
            if self.line.short.load(Ordering::Relaxed) {
                self.runtime.sleep(ms(1)).await;
                return None;
            }
            let message = self.messages.next().await?;
            if self.line.away.load(Ordering::Relaxed) {
                return None;
            }
            if self.runtime.random() % 1000 >= self.line.lossy.load(Ordering::Relaxed) {
                return Some(message);
            }
        }
    }
}

pub(crate) struct Process {
    pub(crate) cache: Cache,
    pub(crate) numbers: Numbers,
    pub(crate) line: Line,
    pub(crate) plan: FaultPlan,
}

pub(crate) async fn process(sim: &SimRuntime, store: &MapBackend, hub: &LocalBackplane) -> Process {
    with(sim, store, hub, BackplaneOptions::default()).await
}

async fn with(
    sim: &SimRuntime,
    store: &MapBackend,
    hub: &LocalBackplane,
    options: BackplaneOptions,
) -> Process {
    let runtime = RuntimeHandle::new(sim.clone());
    let (line, plan) = (Line::to(hub), FaultPlan::new(&runtime));
    let faulty = Faulty::new(store.clone(), &runtime, &plan);
    let cache = Cache::builder(runtime)
        .tier(MemoryBackend::entries(1000))
        .tier(Tier::new(faulty).breaker(BreakerOptions::disabled()).write_deadline(ms(100)))
        .write_policy(tierkeep::composition::WritePolicy::OptimisticParallel { require_all: true })
        .backplane(line.clone())
        .backplane_options(options)
        .build()
        .await
        .unwrap();
    let numbers: Region<u64, u64> = cache.region("n").no_expiry().build().unwrap();
    Process { cache, numbers, line, plan }
}

impl Process {
    async fn get(&self, key: u64) -> Option<u64> {
        self.numbers.get(&key).await.map(|hit| *hit)
    }

    async fn set(&self, key: u64, value: u64) {
        self.numbers.set(&key, value).await.unwrap();
    }

    fn backplane(&self) -> BackplaneInspection {
        self.cache.inspect().backplane.unwrap()
    }
}

#[test]
fn what_is_queued_when_something_may_have_been_missed_goes_to_the_dead_letters() {
    under_seeds(async |sim| {
        let (store, hub) = (MapBackend::comparing(), LocalBackplane::new());
        let runtime = RuntimeHandle::new(sim.clone());
        let (line, own) = (Line::to(&hub), MapBackend::new());
        let (sink, letters) = ChannelLetters::bounded(10).unwrap();
        let behind = WriteBehind::memory().max_delay(Duration::from_secs(3600)).dead_letters(sink);
        let cache = Cache::builder(runtime)
            .tier(MemoryBackend::entries(1000))
            .tier(Tier::new(own.clone()).label("own").write_behind(behind))
            .tier(Tier::new(store).label("shared"))
            .backplane(line.clone())
            .build()
            .await
            .unwrap();
        let numbers: Numbers = cache.region("n").no_expiry().build().unwrap();
        pass(&sim, ms(5000)).await;
        numbers.set(&1, 10).await.unwrap();
        line.away.store(true, Ordering::Relaxed);
        pass(&sim, ms(5000)).await;
        line.away.store(false, Ordering::Relaxed);
        pass(&sim, ms(5000)).await;
        let letter = letters.try_receive().expect("accepted, and neither applied nor superseded");
        assert_eq!((&letter.key, letter.reason), (&numbers.key(&1), DeadReason::Unheard));
        let counts = cache.inspect().tier("own").unwrap().write_behind.clone().unwrap().counts;
        assert_eq!((counts.accepted, counts.superseded, counts.dead), (1, 0, 1));
        assert_eq!(numbers.get(&1).await.map(|hit| *hit), Some(10), "the shared store has it");
    });
}

async fn pass(sim: &SimRuntime, time: Duration) {
    RuntimeHandle::new(sim.clone()).sleep(time).await;
}

/// Two processes, of which the second holds 10 under key 1; they have known each other for a while.
async fn two(sim: &SimRuntime) -> (Process, Process, MapBackend, LocalBackplane) {
    let (store, hub) = (MapBackend::comparing(), LocalBackplane::new());
    let (one, two) = (process(sim, &store, &hub).await, process(sim, &store, &hub).await);
    one.set(1, 10).await;
    pass(sim, ms(5000)).await;
    assert_eq!(two.get(1).await, Some(10));
    pass(sim, ms(10)).await;
    (one, two, store, hub)
}

async fn told(sim: SimRuntime) {
    let (one, two, ..) = two(&sim).await;
    one.set(1, 20).await;
    pass(&sim, ms(5)).await;
    assert_eq!(two.get(1).await, Some(20));
    pass(&sim, ms(5)).await; // until it holds it again
    one.numbers.remove(&1).await.unwrap();
    pass(&sim, ms(5)).await;
    assert_eq!(two.get(1).await, None);
    let heard = two.backplane();
    assert_eq!((heard.state, heard.peers, heard.gaps), (BackplaneState::Up, 1, 0));
    assert!(heard.dropped >= 2 && heard.heard >= 2, "{heard:?}");
}

#[test]
fn what_another_process_sets_or_removes_shows_at_once() {
    under_seeds(told);
    plant(Some(Plant::HeardIgnored));
    let noticed = std::panic::catch_unwind(|| under_seeds(told));
    plant(None);
    assert!(noticed.is_err(), "the planted bug was not noticed");
}

#[test]
fn what_another_process_clears_is_gone() {
    under_seeds(|sim| async move {
        let (one, two, ..) = two(&sim).await;
        one.numbers.clear().await.unwrap();
        pass(&sim, ms(5)).await;
        assert_eq!(two.get(1).await, None);
        two.set(1, 30).await;
        assert_eq!((one.get(1).await, two.get(1).await), (Some(30), Some(30)), "what comes after it stays");
    });
}

#[test]
fn a_message_drops_nothing_newer_and_nothing_else() {
    under_seeds(|sim| async move {
        let (one, two, ..) = two(&sim).await;
        one.set(2, 11).await;
        pass(&sim, ms(10)).await;
        assert_eq!(two.get(2).await, Some(11));
        one.line.delay.store(400, Ordering::Relaxed);
        pass(&sim, ms(2000)).await;
        let dropped = two.backplane().dropped;
        one.set(1, 20).await;
        pass(&sim, ms(2)).await;
        two.set(1, 30).await; // newer than what it is about to hear of
        pass(&sim, ms(1000)).await;
        let at = two.cache.get_from::<u64>("memory", &two.numbers.key(&1)).await.unwrap();
        assert_eq!(at.map(|hit| *hit), Some(30));
        let at = two.cache.get_from::<u64>("memory", &two.numbers.key(&2)).await.unwrap();
        assert_eq!(at.map(|hit| *hit), Some(11));
        assert!(two.backplane().dropped <= dropped + 1, "once, if it was heard before");
    });
}

async fn lost(sim: SimRuntime) {
    let (one, two, ..) = two(&sim).await;
    two.line.lossy.store(1000, Ordering::Relaxed);
    one.set(1, 20).await;
    pass(&sim, ms(10)).await;
    assert_eq!(two.get(1).await, Some(10), "it was lost");
    two.line.lossy.store(0, Ordering::Relaxed);
    // The next heartbeat tells, and everything is dropped within the jitter.
    pass(&sim, ms(1600)).await;
    assert_eq!(two.get(1).await, Some(20));
    let heard = two.backplane();
    assert_eq!((heard.gaps, heard.last_drop), (1, Some(DropCause::Gap)));
    pass(&sim, ms(20_000)).await;
    assert_eq!(two.backplane().drops, heard.drops, "once is enough");
}

#[test]
fn a_lost_last_message_is_noticed_by_the_next_heartbeat() {
    under_seeds(lost);
    plant(Some(Plant::GapIgnored));
    let noticed = std::panic::catch_unwind(|| under_seeds(lost));
    plant(None);
    assert!(noticed.is_err(), "the planted bug was not noticed");
}

#[test]
fn a_process_that_ends_before_it_could_tell_is_noticed_by_its_silence() {
    under_seeds(|sim| async move {
        let (one, two, ..) = two(&sim).await;
        one.line.mute.store(true, Ordering::Relaxed);
        one.set(1, 20).await;
        drop(one);
        pass(&sim, ms(4500)).await;
        assert_eq!(two.get(1).await, Some(20));
        let heard = two.backplane();
        assert_eq!((heard.last_drop, heard.peers), (Some(DropCause::PeerLost), 0));
    });
}

#[test]
fn a_process_that_writes_and_cannot_tell_is_outlived_by_no_entry_for_long() {
    under_seeds(|sim| async move {
        let (one, two, ..) = two(&sim).await;
        one.line.mute.store(true, Ordering::Relaxed);
        pass(&sim, ms(4500)).await;
        assert_eq!(two.get(1).await, Some(10));
        assert_eq!((two.backplane().state, two.backplane().missing), (BackplaneState::Up, 1));
        pass(&sim, ms(10)).await;
        one.set(1, 20).await;
        // Nobody tells, for as long as it lasts.
        pass(&sim, ms(30_000)).await;
        assert_eq!(two.get(1).await, Some(20));
        one.line.mute.store(false, Ordering::Relaxed);
        pass(&sim, ms(5000)).await;
        assert_eq!(two.backplane().missing, 0, "it is heard again");
        one.set(1, 30).await;
        pass(&sim, ms(10)).await;
        assert_eq!(two.get(1).await, Some(30));
    });
}

#[test]
fn a_subscription_that_ends_at_once_is_not_made_anew_without_a_pause() {
    under_seeds(|sim| async move {
        let (one, two, ..) = two(&sim).await;
        one.set(2, 1).await;
        let before = two.backplane().subscriptions;
        two.line.short.store(true, Ordering::Relaxed);
        pass(&sim, ms(10_000)).await;
        let made = two.backplane().subscriptions - before;
        assert!((2..40).contains(&made), "{made} in 10 s");
    });
}

#[test]
fn a_process_that_hears_and_cannot_publish_drops_everything_once_and_once_more_when_it_can() {
    under_seeds(|sim| async move {
        let (_one, two, ..) = two(&sim).await;
        let before = two.backplane();
        two.line.refusing.store(true, Ordering::Relaxed);
        pass(&sim, ms(30_000)).await;
        let during = two.backplane();
        assert_eq!((during.state, during.drops - before.drops), (BackplaneState::Down, 1), "{during:?}");
        two.line.refusing.store(false, Ordering::Relaxed);
        pass(&sim, ms(5000)).await;
        let after = two.backplane();
        // The last one because the other may have told something while nobody listened.
        assert_eq!(after.state, BackplaneState::Up);
        assert!((2..=3).contains(&(after.drops - before.drops)), "{after:?}");
    });
}

#[test]
fn a_process_that_takes_its_leave_is_not_missed() {
    under_seeds(|sim| async move {
        let (one, two, ..) = two(&sim).await;
        let drops = two.backplane().drops;
        one.set(1, 20).await;
        assert!(one.cache.shutdown(ms(10_000)).await.clean);
        pass(&sim, ms(10_000)).await;
        assert_eq!(two.get(1).await, Some(20));
        assert_eq!((two.backplane().drops, two.backplane().peers), (drops, 0));
    });
}

#[test]
fn a_subscription_that_ends_is_made_anew_and_what_was_missed_is_not_shown() {
    under_seeds(|sim| async move {
        let (one, two, _, hub) = two(&sim).await;
        hub.disconnect();
        one.set(1, 20).await;
        pass(&sim, ms(700)).await;
        assert_eq!(two.get(1).await, Some(20));
        assert_eq!(two.backplane().subscriptions, 2);
    });
}

#[test]
fn a_line_that_says_nothing_is_given_up_and_heard_again_when_it_heals() {
    under_seeds(|sim| async move {
        let (one, two, ..) = two(&sim).await;
        two.line.lossy.store(1000, Ordering::Relaxed); // its own messages do not come back either
        one.set(1, 20).await;
        pass(&sim, ms(4500)).await;
        assert_eq!(two.get(1).await, Some(20));
        two.line.lossy.store(0, Ordering::Relaxed);
        pass(&sim, ms(5000)).await;
        one.set(1, 30).await;
        pass(&sim, ms(5)).await;
        assert_eq!(two.get(1).await, Some(30));
    });
}

#[test]
fn while_the_backplane_is_away_entries_live_as_short_as_without_it() {
    under_seeds(|sim| async move {
        let (one, two, ..) = two(&sim).await;
        let left = two.numbers.get(&1).await.unwrap().ttl().unwrap();
        assert!(left > ms(200_000), "five minutes: {left:?}");
        let mut events = two.cache.events();
        two.line.away.store(true, Ordering::Relaxed);
        pass(&sim, ms(5000)).await;
        assert_eq!(two.backplane().state, BackplaneState::Down);
        let causes: Vec<_> = two.cache.health().reasons.iter().map(|reason| reason.cause).collect();
        assert_eq!(causes, [HealthCause::BackplaneDown]);
        assert_eq!(two.get(1).await, Some(10));
        pass(&sim, ms(10)).await;
        let left = two.numbers.get(&1).await.unwrap().ttl().unwrap();
        assert!(left <= ms(30_000), "{left:?}");
        one.set(1, 20).await;
        pass(&sim, ms(30_000)).await;
        assert_eq!(two.get(1).await, Some(20), "once the cap is over");
        two.set(2, 40).await;
        two.line.away.store(false, Ordering::Relaxed);
        pass(&sim, ms(5000)).await;
        assert!(two.cache.health().reasons.is_empty());
        let mut kinds = Vec::new();
        while let Some(event) = events.try_next() {
            kinds.push(event.kind);
        }
        assert!(kinds.contains(&EventKind::BackplaneDown) && kinds.contains(&EventKind::BackplaneUp));
        assert!(kinds.contains(&EventKind::DroppedAll { cause: DropCause::Reconnected }), "{kinds:?}");
        // What could not be told meanwhile has been told by now.
        assert_eq!(two.backplane().queued, 0);
        assert_eq!(one.get(2).await, Some(40));
    });
}

#[test]
fn more_than_can_be_queued_has_the_others_drop_everything_once() {
    under_seeds(|sim| async move {
        let (store, hub) = (MapBackend::comparing(), LocalBackplane::new());
        let mut options = BackplaneOptions::default();
        options.queue = 20;
        let one = with(&sim, &store, &hub, options).await;
        let two = process(&sim, &store, &hub).await;
        for key in 0..50 {
            one.set(key, 10).await;
        }
        pass(&sim, ms(5000)).await;
        for key in 0..50 {
            assert_eq!(two.get(key).await, Some(10));
        }
        let drops = two.backplane().drops;
        one.line.away.store(true, Ordering::Relaxed);
        for key in 0..50 {
            one.set(key, 20).await;
        }
        assert!(one.backplane().queued <= 21, "{:?}", one.backplane());
        assert!(one.backplane().overflows >= 1);
        one.line.away.store(false, Ordering::Relaxed);
        pass(&sim, ms(3000)).await;
        for key in 0..50 {
            assert_eq!(two.get(key).await, Some(20));
        }
        assert_eq!(two.backplane().drops, drops + 1);
    });
}

#[test]
fn what_cannot_be_read_is_taken_for_something_missed() {
    under_seeds(|sim| async move {
        let (_one, two, _, hub) = two(&sim).await;
        hub.publish(&RuntimeHandle::new(sim.clone()), Raw::from_static(b"not ours")).await.unwrap();
        pass(&sim, ms(600)).await;
        assert_eq!(two.backplane().last_drop, Some(DropCause::Unreadable));
    });
}
