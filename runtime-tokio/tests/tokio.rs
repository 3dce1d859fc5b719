//! What only tokio has: a clock that can be paused, and a runtime that shuts down under its actors.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tierkeep::ErrorKind;
use tierkeep::runtime::{
    ActorSpec, ActorState, Address, Envelope, Handler, RejectReason, RestartPolicy, RuntimeHandle, host,
};
use tierkeep_tokio::TokioRuntime;
use tokio::runtime::Builder;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Holds what it gets, and is never ready for more.
#[derive(Default)]
struct Hoarder(Vec<Envelope>);

impl Handler for Hoarder {
    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        if self.0.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    }

    fn handle(&mut self, message: Envelope) {
        self.0.push(message);
    }
}

fn hoarder() -> ActorSpec {
    ActorSpec {
        name: "hoarder".into(),
        capacity: 4,
        restart: RestartPolicy::default(),
        factory: Arc::new(|| Box::pin(async { Ok(Box::<Hoarder>::default() as Box<dyn Handler>) })),
        watch: Arc::new(|_| {}),
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_drives_timers_and_both_clocks() {
    let runtime = RuntimeHandle::new(TokioRuntime::current());
    let (start, wall) = (runtime.now(), runtime.wall());
    let mut timer = runtime.sleep(DAY);
    assert!((&mut timer).now_or_never().is_none());

    tokio::time::advance(DAY / 2).await;
    assert_eq!(runtime.now().since(start), DAY / 2);
    let drift = runtime.wall().since(wall).abs_diff(DAY / 2);
    assert!(drift <= Duration::from_millis(1), "the wall clock goes along: {drift:?}");
    assert!((&mut timer).now_or_never().is_none(), "it is not time yet");

    // With nothing else to do, tokio moves on to the timer.
    timer.await;
    assert!(runtime.now().since(start) >= DAY);
}

#[test]
fn a_paused_clock_is_seen_from_outside_of_its_runtime() {
    let tokio = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let runtime = RuntimeHandle::new(TokioRuntime::new(tokio.handle().clone()));
    let start = runtime.now();
    tokio.block_on(tokio::time::advance(DAY));
    assert_eq!(runtime.now().since(start), DAY);
    let timer = runtime.sleep(DAY);
    tokio.block_on(timer);
    assert!(runtime.now().since(start) >= DAY * 2);
}

#[test]
fn try_current_fails_outside_of_a_runtime() {
    assert_eq!(TokioRuntime::try_current().unwrap_err().kind(), ErrorKind::Config);
    let tokio = Builder::new_current_thread().build().unwrap();
    assert!(tokio.block_on(async { TokioRuntime::try_current() }).is_ok());
}

#[test]
fn actors_stop_with_their_runtime_on_both_hosts() {
    type Spawn = fn(&RuntimeHandle, ActorSpec) -> Address;
    for spawn in [RuntimeHandle::spawn_actor as Spawn, host::spawn_on_flume] {
        let tokio = Builder::new_multi_thread().enable_time().build().unwrap();
        let runtime = RuntimeHandle::new(TokioRuntime::new(tokio.handle().clone()));
        let address = spawn(&runtime, hoarder());
        let (handled, queued) = (Arc::new(()), Arc::new(()));
        assert!(address.try_send(Envelope::new(handled.clone())).is_ok());
        assert!(address.try_send(Envelope::new(queued.clone())).is_ok());
        drop(tokio);

        let other = Builder::new_current_thread().enable_time().build().unwrap();
        let waiter = RuntimeHandle::new(TokioRuntime::new(other.handle().clone()));
        let deadline = waiter.now().after(Duration::from_secs(60));
        let stopped = other.block_on(waiter.deadline(deadline, address.stopped()));
        assert!(stopped.is_some(), "whoever waits for the end is told");
        assert_eq!(address.state(), ActorState::Stopped);
        assert_eq!(Arc::strong_count(&handled), 1, "the handler is gone");
        assert_eq!(Arc::strong_count(&queued), 1, "what was queued is dropped, which answers it");
        let rejected = address.try_send(Envelope::new(())).unwrap_err();
        assert_eq!(rejected.reason, RejectReason::Stopped);

        // And one that comes too late never starts.
        let late = spawn(&runtime, hoarder());
        assert!(late.stopped().now_or_never().is_some());
    }
}
