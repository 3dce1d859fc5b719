//! Failures: what a restart keeps and drops, its limit and delays, and the way back from being down.
#![expect(missing_docs, reason = "the name of a case says what must hold")]

use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::FutureExt;

use super::probe::{Say, Seen, Start, quick, scripted_panic, spec};
use super::stage::{NEVER, Stage, rejected, within};
use crate::error::ErrorKind;
use crate::runtime::{ActorEvent, ActorState, Envelope, RejectReason, RestartPolicy, RuntimeHandle};

/// Goes down at the first failure and is tried again after `retry`.
fn fragile(retry: Duration) -> RestartPolicy {
    RestartPolicy { retry, ..quick(0) }
}

pub async fn a_panic_restarts_the_actor_and_keeps_what_is_queued(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 8, quick(5)).await;
    stage.say(Say::Note(0));
    stage.say(Say::Panic(None));
    (1..6).for_each(|n| stage.say(Say::Note(n)));
    stage.control.open();
    for n in 0..6 {
        assert_eq!(stage.handled().await, n);
    }
    let ActorEvent::Failed(error) = stage.expect("Failed").await else { unreachable!() };
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert!(error.message().contains("scripted"), "the panic's message is told: {error}");
    stage.expect_all(&["Restarting", "Started"]).await;
    assert_eq!(stage.address.state(), ActorState::Running);
    stage.address.stop();
    stage.expect("Stopped").await;
}

pub async fn the_message_being_handled_is_dropped(runtime: RuntimeHandle) {
    let stage = Stage::new(&runtime, 8, quick(5));
    let (reply, answer) = oneshot::channel();
    stage.say(Say::Panic(Some(reply)));
    assert_eq!(stage.answer(answer).await, None);
    stage.echo(1).await;
}

pub async fn requests_held_by_the_handler_are_dropped(runtime: RuntimeHandle) {
    let stage = Stage::new(&runtime, 8, quick(5));
    let (reply, answer) = oneshot::channel();
    stage.say(Say::Keep(reply));
    stage.say(Say::Panic(None));
    assert_eq!(stage.answer(answer).await, None);
    stage.echo(1).await;
}

pub async fn the_old_incarnation_is_dropped_before_the_next_is_made(runtime: RuntimeHandle) {
    let mut stage = Stage::new(&runtime, 8, quick(50));
    for n in 1..20 {
        stage.say(Say::Panic(None));
        assert_eq!(stage.see().await, Seen::Made(n));
        assert_eq!(stage.see().await, Seen::Dropped(n));
    }
}

pub async fn a_panic_in_poll_ready_restarts_the_actor(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 8, quick(5)).await;
    stage.say(Say::PanicInReady);
    stage.say(Say::Note(1));
    stage.control.open();
    stage.expect_all(&["Failed", "Restarting", "Started"]).await;
    assert_eq!(stage.handled().await, 1);
}

pub async fn a_panic_in_idle_restarts_the_actor(runtime: RuntimeHandle) {
    let mut stage = Stage::new(&runtime, 8, quick(5));
    stage.say(Say::PanicInIdle);
    stage.expect_all(&["Started", "Failed", "Restarting", "Started"]).await;
    stage.echo(1).await;
}

async fn is_made_after(runtime: RuntimeHandle, start: Start, kind: ErrorKind) {
    let mut stage = Stage::scripted(&runtime, 8, quick(5), [start, start]);
    stage.say(Say::Note(1));
    for _ in 0..2 {
        let ActorEvent::Failed(error) = stage.expect("Failed").await else { unreachable!() };
        assert_eq!(error.kind(), kind);
        stage.expect("Restarting").await;
    }
    stage.expect("Started").await;
    assert_eq!(stage.handled().await, 1);
}

pub async fn a_panic_while_being_made_is_a_failure(runtime: RuntimeHandle) {
    is_made_after(runtime, Start::Panic, ErrorKind::Panicked).await;
}

pub async fn a_panic_before_being_made_is_a_failure(runtime: RuntimeHandle) {
    is_made_after(runtime, Start::PanicAtOnce, ErrorKind::Panicked).await;
}

pub async fn a_failing_factory_is_tried_again(runtime: RuntimeHandle) {
    is_made_after(runtime, Start::Fail, ErrorKind::Backend).await;
}

pub async fn a_panicking_destructor_does_no_harm(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 8, quick(5)).await;
    stage.say(Say::PanicInDrop);
    stage.say(Say::Panic(None));
    stage.say(Say::Note(1));
    stage.control.open();
    assert_eq!(stage.handled().await, 1);
    stage.say(Say::PanicInDrop);
    stage.address.stop();
    stage.stopped().await;
}

pub async fn a_panicking_watch_does_no_harm(runtime: RuntimeHandle) {
    let (mut spec, control, _seen) = spec(8, fragile(Duration::from_millis(1)));
    spec.watch = Arc::new(|_| scripted_panic());
    control.script([Start::Fail]);
    let address = runtime.spawn_actor(spec);
    within(&runtime, "its return", async {
        // It is down, and rejects, until it has been tried again.
        loop {
            let (reply, answer) = oneshot::channel();
            if address.try_send(Envelope::new(Say::Echo(1, reply))).is_ok() && answer.await == Ok(1) {
                break;
            }
            runtime.sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    address.stop();
    within(&runtime, "its end", address.stopped()).await;
}

pub async fn restarts_within_the_limit_keep_the_actor_up(runtime: RuntimeHandle) {
    let mut stage = Stage::new(&runtime, 8, quick(3));
    stage.expect("Started").await;
    for n in 0..3 {
        stage.say(Say::Panic(None));
        stage.expect_all(&["Failed", "Restarting", "Started"]).await;
        stage.echo(n).await;
    }
    assert_eq!(stage.address.state(), ActorState::Running);
}

pub async fn past_the_limit_the_actor_is_down(runtime: RuntimeHandle) {
    let policy = RestartPolicy { retry: NEVER, ..quick(2) };
    let mut stage = Stage::closed(&runtime, 16, policy).await;
    (0..3).for_each(|_| stage.say(Say::Panic(None)));
    let queued: Vec<_> = (0..10).map(|n| stage.ask(n)).collect();
    stage.control.open();
    stage.expect_all(&["Failed", "Restarting", "Started", "Failed", "Restarting", "Started", "Failed"]).await;
    let ActorEvent::Down(delay) = stage.expect("Down").await else { unreachable!() };
    assert!(delay >= NEVER / 2 && delay <= NEVER, "{delay:?}");
    for answer in queued {
        assert_eq!(stage.answer(answer).await, None, "what is queued is dropped");
    }
    assert_eq!(stage.address.state(), ActorState::Down);
    assert_eq!(rejected(stage.address.try_send(Envelope::new(Say::Note(3)))), (RejectReason::Down, 3));
    assert_eq!(rejected(stage.address.send(Envelope::new(Say::Note(4))).await), (RejectReason::Down, 4));
    assert_eq!(stage.address.len(), 0);
    stage.address.kill();
    stage.stopped_promptly().await;
}

pub async fn going_down_releases_blocked_senders(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 1, fragile(NEVER)).await;
    let queued = stage.ask(0);
    let address = stage.address.clone();
    let mut blocked: Vec<_> = (0..4).map(|n| address.send(Envelope::new(Say::Note(n)))).collect();
    assert!(blocked.iter_mut().all(|sending| sending.now_or_never().is_none()));
    // One that is given up must not swallow the release of the others.
    drop(blocked.remove(0));
    stage.control.panic_when_polled();
    for (n, sending) in (1..).zip(blocked) {
        let released = within(&runtime, "the release", sending).await;
        assert_eq!(rejected(released), (RejectReason::Down, n), "the message is given back");
    }
    assert_eq!(stage.answer(queued).await, None);
    stage.expect_all(&["Failed", "Down"]).await;
    assert_eq!(stage.address.state(), ActorState::Down);
}

pub async fn a_blocked_sender_survives_a_restart(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 1, quick(5)).await;
    stage.say(Say::Panic(None));
    let address = stage.address.clone();
    let mut sending = address.send(Envelope::new(Say::Note(1)));
    assert!((&mut sending).now_or_never().is_none());
    stage.control.open();
    assert!(within(&runtime, "room", sending).await.is_ok());
    assert_eq!(stage.handled().await, 1);
}

pub async fn an_actor_that_is_down_returns_by_itself(runtime: RuntimeHandle) {
    let mut stage = Stage::new(&runtime, 8, fragile(Duration::from_millis(2)));
    stage.expect("Started").await;
    // Twice: the return does not use itself up.
    for n in 0..2 {
        stage.say(Say::Panic(None));
        stage.expect_all(&["Failed", "Down", "Started"]).await;
        assert_eq!(stage.address.state(), ActorState::Running);
        stage.echo(n).await;
    }
}

pub async fn an_outage_is_forgotten_after_the_return(runtime: RuntimeHandle) {
    let mut stage = Stage::new(&runtime, 8, quick(1));
    stage.expect("Started").await;
    for expected in ["Restarting", "Down", "Restarting", "Down"] {
        stage.say(Say::Panic(None));
        stage.expect_all(&["Failed", expected, "Started"]).await;
    }
}

pub async fn attempts_go_on_for_ever(runtime: RuntimeHandle) {
    let retry = Duration::from_millis(2);
    let mut stage = Stage::scripted(&runtime, 8, fragile(retry), [Start::Fail; 12]);
    for _ in 0..12 {
        stage.expect("Failed").await;
        let ActorEvent::Down(delay) = stage.expect("Down").await else { unreachable!() };
        assert!(delay >= retry / 2 && delay <= retry, "{delay:?}");
    }
    stage.expect("Started").await;
    stage.echo(1).await;
}

pub async fn failures_outside_of_the_window_are_forgotten(runtime: RuntimeHandle) {
    let window = Duration::from_millis(10);
    let mut stage = Stage::new(&runtime, 8, RestartPolicy { window, ..quick(1) });
    stage.expect("Started").await;
    for _ in 0..3 {
        stage.say(Say::Panic(None));
        stage.expect_all(&["Failed", "Restarting", "Started"]).await;
        runtime.sleep(window).await;
    }
}

pub async fn the_backoff_grows_to_its_maximum(runtime: RuntimeHandle) {
    let (backoff, backoff_max) = (Duration::from_millis(2), Duration::from_millis(6));
    let mut stage = Stage::new(&runtime, 8, RestartPolicy { backoff, backoff_max, ..quick(4) });
    stage.expect("Started").await;
    for full in [backoff, backoff * 2, backoff_max, backoff_max] {
        stage.say(Say::Panic(None));
        stage.expect("Failed").await;
        let ActorEvent::Restarting(delay) = stage.expect("Restarting").await else { unreachable!() };
        assert!(
            delay >= full / 2 && delay <= full,
            "{delay:?} is not between half of {full:?} and all of it"
        );
        stage.expect("Started").await;
    }
}

pub async fn a_restart_waits_out_its_delay(runtime: RuntimeHandle) {
    let backoff = Duration::from_millis(10);
    let mut stage = Stage::new(&runtime, 8, RestartPolicy { backoff, backoff_max: backoff, ..quick(5) });
    stage.expect("Started").await;
    stage.say(Say::Panic(None));
    stage.expect("Failed").await;
    let (failed, ActorEvent::Restarting(delay)) = stage.event_at().await else {
        panic!("it is restarted");
    };
    let (started, event) = stage.event_at().await;
    assert!(matches!(event, ActorEvent::Started), "{event:?}");
    assert!(started.since(failed) >= delay, "restarted after {:?}, not {delay:?}", started.since(failed));
}
