//! Ends: what a stop handles and a kill drops, whatever the actor is doing, and who is told.
#![expect(missing_docs, reason = "the name of a case says what must hold")]

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::FutureExt;

use super::probe::{Say, Seen, Start, quick, spec};
use super::stage::{NEVER, Stage, rejected, within};
use crate::runtime::{ActorEvent, ActorState, Envelope, RejectReason, RestartPolicy, RuntimeHandle};

/// Is restarted, but not before the end of the case.
fn patient() -> RestartPolicy {
    RestartPolicy { backoff: NEVER, backoff_max: NEVER, ..quick(5) }
}

pub async fn stop_handles_what_is_queued(runtime: RuntimeHandle) {
    let mut stage = Stage::new(&runtime, 100, quick(5));
    (0..100).for_each(|n| stage.say(Say::Note(n)));
    stage.address.stop();
    assert_eq!(rejected(stage.address.try_send(Envelope::new(Say::Note(100)))), (RejectReason::Stopped, 100));
    stage.stopped().await;
    for n in 0..100 {
        assert_eq!(stage.handled().await, n);
    }
    stage.expect_all(&["Started", "Stopped"]).await;
}

pub async fn stop_waits_for_a_handler_that_is_not_ready(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 8, quick(5)).await;
    stage.say(Say::Note(1));
    stage.say(Say::Note(2));
    stage.address.stop();
    assert_eq!(stage.address.state(), ActorState::Running);
    stage.control.open();
    stage.stopped().await;
    assert_eq!(stage.handled().await, 1);
    assert_eq!(stage.handled().await, 2);
}

pub async fn kill_drops_what_is_queued(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 8, quick(5)).await;
    let queued = [stage.ask(1), stage.ask(2)];
    stage.address.kill();
    stage.stopped().await;
    for answer in queued {
        assert_eq!(stage.answer(answer).await, None);
    }
    assert_eq!(stage.unread(), [Seen::Dropped(1)], "nothing was handled");
    assert_eq!(stage.address.len(), 0);
}

pub async fn a_stop_overtaken_by_a_kill(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 8, quick(5)).await;
    let queued = stage.ask(1);
    stage.address.stop();
    stage.address.kill();
    stage.address.stop();
    stage.stopped().await;
    assert_eq!(stage.answer(queued).await, None);
    stage.address.kill();
    stage.expect("Stopped").await;
    assert!(stage.unread_events().is_empty(), "it ends once");
}

pub async fn a_hanging_factory_can_be_killed(runtime: RuntimeHandle) {
    let mut stage = Stage::scripted(&runtime, 8, quick(5), [Start::Hang]);
    let queued = stage.ask(1);
    assert_eq!(stage.address.state(), ActorState::Starting);
    stage.address.kill();
    stage.stopped_promptly().await;
    assert_eq!(stage.answer(queued).await, None);
    stage.expect("Stopped").await;
    // The factory may not have been called by then.
    assert!(matches!(stage.unread()[..], [] | [Seen::HangDropped]));
}

pub async fn a_hanging_factory_can_be_stopped(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 8, quick(5)).await;
    stage.control.script([Start::Hang]);
    stage.say(Say::Panic(None));
    stage.control.open();
    stage.expect_all(&["Failed", "Restarting"]).await;
    // Well past the delay: the second incarnation is being made.
    runtime.sleep(Duration::from_millis(20)).await;
    assert_eq!(stage.address.state(), ActorState::Restarting);
    stage.address.stop();
    stage.stopped_promptly().await;
    stage.expect("Stopped").await;
}

pub async fn stop_while_restarting_is_prompt(runtime: RuntimeHandle) {
    let mut stage = Stage::scripted(&runtime, 8, patient(), [Start::Fail]);
    stage.expect_all(&["Failed", "Restarting"]).await;
    assert_eq!(stage.address.state(), ActorState::Restarting);
    stage.address.stop();
    stage.stopped_promptly().await;
    stage.expect("Stopped").await;
}

pub async fn stop_while_restarting_handles_what_is_queued(runtime: RuntimeHandle) {
    let mut stage = Stage::scripted(&runtime, 8, patient(), [Start::Fail]);
    stage.expect_all(&["Failed", "Restarting"]).await;
    stage.say(Say::Note(1));
    stage.address.stop();
    stage.stopped_promptly().await;
    assert_eq!(stage.handled().await, 1);
    stage.expect_all(&["Started", "Stopped"]).await;
}

pub async fn stop_while_nothing_can_be_made_gives_up(runtime: RuntimeHandle) {
    let policy = RestartPolicy { retry: NEVER, ..patient() };
    let stage = Stage::scripted(&runtime, 8, policy, [Start::Fail; 100]);
    let queued = stage.ask(1);
    stage.address.stop();
    stage.stopped_promptly().await;
    assert_eq!(stage.answer(queued).await, None);
}

pub async fn kill_while_restarting_is_prompt(runtime: RuntimeHandle) {
    let mut stage = Stage::scripted(&runtime, 8, patient(), [Start::Fail]);
    stage.expect_all(&["Failed", "Restarting"]).await;
    let queued = stage.ask(1);
    stage.address.kill();
    stage.stopped_promptly().await;
    assert_eq!(stage.answer(queued).await, None);
    stage.expect("Stopped").await;
}

pub async fn stop_while_down_is_prompt(runtime: RuntimeHandle) {
    let policy = RestartPolicy { retry: NEVER, ..quick(0) };
    let mut stage = Stage::scripted(&runtime, 8, policy, [Start::Fail]);
    stage.expect_all(&["Failed", "Down"]).await;
    stage.address.stop();
    stage.stopped_promptly().await;
    stage.expect("Stopped").await;
    assert_eq!(stage.address.state(), ActorState::Stopped);
}

pub async fn stopping_releases_blocked_senders(runtime: RuntimeHandle) {
    for kill in [false, true] {
        let stage = Stage::closed(&runtime, 1, quick(5)).await;
        stage.say(Say::Note(0));
        let address = stage.address.clone();
        let mut blocked: Vec<_> = (0..3).map(|n| address.send(Envelope::new(Say::Note(n)))).collect();
        assert!(blocked.iter_mut().all(|sending| sending.now_or_never().is_none()));
        if kill {
            address.kill()
        } else {
            address.stop()
        }
        for (n, sending) in (0..).zip(blocked) {
            let released = within(&runtime, "the release", sending).await;
            assert_eq!(rejected(released), (RejectReason::Stopped, n));
        }
        stage.control.open();
        stage.stopped().await;
    }
}

pub async fn stopped_completes_for_every_waiter(runtime: RuntimeHandle) {
    let stage = Stage::new(&runtime, 8, quick(5));
    let early: Vec<_> = (0..20).map(|_| runtime.spawn(stage.address.stopped())).collect();
    let abandoned = stage.address.stopped();
    let mut polled = stage.address.stopped();
    assert!((&mut polled).now_or_never().is_none(), "it has not stopped yet");
    drop(abandoned);
    stage.address.stop();
    for waiter in early {
        assert_eq!(within(&runtime, "an early waiter", waiter).await, Ok(()));
    }
    within(&runtime, "a waiter", polled).await;
    // And after the fact, without the address.
    let late = stage.address.stopped();
    drop(stage.address);
    within(&runtime, "a late waiter", late).await;
}

pub async fn a_stopped_actor_rejects_messages(runtime: RuntimeHandle) {
    let stage = Stage::new(&runtime, 8, quick(5));
    let clone = stage.address.clone();
    stage.address.stop();
    stage.stopped().await;
    assert_eq!(clone.state(), ActorState::Stopped);
    assert_eq!(rejected(clone.try_send(Envelope::new(Say::Note(1)))), (RejectReason::Stopped, 1));
    assert_eq!(rejected(clone.send(Envelope::new(Say::Note(2))).await), (RejectReason::Stopped, 2));
    assert_eq!(clone.len(), 0);
}

pub async fn the_handler_is_gone_once_stopped(runtime: RuntimeHandle) {
    let mut stage = Stage::new(&runtime, 8, quick(5));
    let (reply, kept) = oneshot::channel();
    stage.say(Say::Keep(reply));
    stage.address.stop();
    stage.stopped().await;
    assert_eq!(stage.unread().last(), Some(&Seen::Dropped(1)));
    assert_eq!(kept.now_or_never(), Some(Err(oneshot::Canceled)), "with all that it held");
}

pub async fn a_handler_can_stop_its_own_actor(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 8, quick(5)).await;
    stage.control.introduce(&stage.address);
    stage.say(Say::StopYourself);
    stage.say(Say::Note(1));
    stage.control.open();
    stage.stopped().await;
    assert_eq!(stage.handled().await, 1, "what was queued behind is handled");
}

pub async fn a_watch_can_stop_the_actor(runtime: RuntimeHandle) {
    let (mut spec, control, _seen) = spec(8, quick(5));
    control.script([Start::Fail]);
    let watching = control.clone();
    spec.watch = Arc::new(move |event| {
        if matches!(event, ActorEvent::Failed(_)) {
            watching.stop_actor();
        }
    });
    // Held back until the watch knows the address.
    let (go, gate) = oneshot::channel::<()>();
    let (gate, make) = (gate.map(drop).shared(), spec.factory);
    spec.factory = Arc::new(move || {
        let (gate, make) = (gate.clone(), make.clone());
        Box::pin(async move {
            gate.await;
            make().await
        })
    });
    let address = runtime.spawn_actor(spec);
    control.introduce(&address);
    let _ = go.send(());
    within(&runtime, "its end", address.stopped()).await;
}

pub async fn dropping_the_last_address_stops_the_actor(runtime: RuntimeHandle) {
    let Stage { address, .. } = Stage::new(&runtime, 8, quick(5));
    let (reply, answer) = oneshot::channel();
    assert!(address.try_send(Envelope::new(Say::Echo(1, reply))).is_ok());
    let clone = address.clone();
    let stopped = clone.stopped();
    drop(address);
    let mut stopped = runtime.spawn(stopped);
    assert_eq!(within(&runtime, "an answer", answer).await, Ok(1));
    assert!((&mut stopped).now_or_never().is_none(), "a clone keeps it");
    drop(clone);
    assert_eq!(within(&runtime, "its end", stopped).await, Ok(()));
}

pub async fn everything_is_released_after_a_stop(runtime: RuntimeHandle) {
    let (mut spec, control, _seen) = spec(8, quick(5));
    control.script([Start::Fail]);
    let (make, token) = (spec.factory, Arc::new(()));
    let released: Weak<()> = Arc::downgrade(&token);
    spec.factory = Arc::new(move || {
        let _token = &token;
        make()
    });
    let address = runtime.spawn_actor(spec);
    assert!(address.try_send(Envelope::new(Say::Panic(None))).is_ok());
    let (reply, answer) = oneshot::channel();
    assert!(address.try_send(Envelope::new(Say::Echo(1, reply))).is_ok());
    assert_eq!(within(&runtime, "an answer", answer).await, Ok(1));
    address.stop();
    within(&runtime, "its end", address.stopped()).await;
    drop(address);
    // The host's tasks may still be on their way out.
    within(&runtime, "the release of the factory", async {
        while released.strong_count() > 0 {
            runtime.sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
