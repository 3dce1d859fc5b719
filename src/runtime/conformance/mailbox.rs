//! Messages: order, room, back-pressure, and the calls of `idle`.
#![expect(missing_docs, reason = "the name of a case says what must hold")]

use futures_channel::mpsc;
use futures_util::{FutureExt, StreamExt};

use super::probe::{Control, Say, Seen, quick};
use super::stage::{Stage, rejected, within};
use crate::runtime::{Address, Envelope, RejectReason, RuntimeHandle};

fn note(number: u32) -> Envelope {
    Envelope::new(Say::Note(number))
}

pub async fn messages_are_handled_in_order(runtime: RuntimeHandle) {
    let mut stage = Stage::new(&runtime, 100, quick(5));
    (0..100).for_each(|n| stage.say(Say::Note(n)));
    for n in 0..100 {
        assert_eq!(stage.handled().await, n);
    }
}

pub async fn each_sender_keeps_its_order_and_nothing_is_lost(runtime: RuntimeHandle) {
    const SENDERS: u32 = 8;
    const EACH: u32 = 100;
    // Little room, so that senders wait and compete for it.
    let mut stage = Stage::new(&runtime, 3, quick(5));
    for sender in 0..SENDERS {
        let address = stage.address.clone();
        drop(runtime.spawn(async move {
            for n in 0..EACH {
                assert!(address.send(note(sender * EACH + n)).await.is_ok());
            }
        }));
    }
    let mut next = [0; SENDERS as usize];
    for _ in 0..SENDERS * EACH {
        let number = stage.handled().await;
        let sender = &mut next[(number / EACH) as usize];
        assert_eq!(number % EACH, *sender, "each sender's messages come in its order");
        *sender += 1;
    }
    stage.address.stop();
    stage.stopped().await;
    let twice = stage.unread().into_iter().filter(|seen| matches!(seen, Seen::Handled(_))).count();
    assert_eq!(twice, 0, "no message comes twice");
}

pub async fn a_mailbox_is_full_at_exactly_its_capacity(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 3, quick(5)).await;
    for n in 0..3 {
        assert_eq!(stage.address.len(), n as usize);
        stage.say(Say::Note(n));
    }
    assert_eq!(rejected(stage.address.try_send(note(3))), (RejectReason::Full, 3));
    assert_eq!(stage.address.len(), 3);
    stage.control.open();
    for n in 0..3 {
        assert_eq!(stage.handled().await, n);
    }
    stage.say(Say::Note(4));
    assert_eq!(stage.handled().await, 4);
    assert_eq!(stage.address.len(), 0);
}

pub async fn a_mailbox_holds_at_least_one_message(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 0, quick(5)).await;
    stage.say(Say::Note(0));
    assert_eq!(rejected(stage.address.try_send(note(1))), (RejectReason::Full, 1));
    stage.control.open();
    assert_eq!(stage.handled().await, 0);
}

pub async fn a_refused_message_is_given_back(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 1, quick(5)).await;
    stage.say(Say::Note(0));
    let refused = stage.address.try_send(note(1)).expect_err("there is no room");
    stage.control.open();
    assert_eq!(stage.handled().await, 0);
    assert!(stage.address.try_send(refused.message).is_ok());
    assert_eq!(stage.handled().await, 1);
}

pub async fn send_waits_for_room(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 1, quick(5)).await;
    stage.say(Say::Note(0));
    let address = stage.address.clone();
    let mut sending = address.send(note(1));
    assert!((&mut sending).now_or_never().is_none(), "there is no room yet");
    stage.control.open();
    assert!(within(&runtime, "room", sending).await.is_ok());
    assert_eq!(stage.handled().await, 0);
    assert_eq!(stage.handled().await, 1);
}

pub async fn a_dropped_send_loses_only_its_own_message(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 1, quick(5)).await;
    stage.say(Say::Note(0));
    let address = stage.address.clone();
    let (mut first, mut second) = (address.send(note(1)), address.send(note(2)));
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    drop(first);
    stage.control.open();
    assert!(within(&runtime, "room", second).await.is_ok());
    assert_eq!(stage.handled().await, 0);
    assert_eq!(stage.handled().await, 2);
}

pub async fn a_dropped_send_passes_its_room_on(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 1, quick(5)).await;
    stage.say(Say::Note(0));
    let address = stage.address.clone();
    let (mut first, mut second) = (address.send(note(1)), address.send(note(2)));
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    stage.control.open();
    // The room is free and the first sender has been told so, but it gives up before it looks.
    assert_eq!(stage.handled().await, 0);
    drop(first);
    assert!(within(&runtime, "room", second).await.is_ok());
    assert_eq!(stage.handled().await, 2);
}

pub async fn messages_wait_while_the_handler_is_not_ready(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 8, quick(5)).await;
    stage.say(Say::Note(0));
    stage.say(Say::Close);
    stage.say(Say::Note(1));
    stage.say(Say::Note(2));
    stage.control.open();
    assert_eq!(stage.handled().await, 0);
    // What a host that ignores readiness would use to go on.
    runtime.sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(stage.unread().iter().filter(|seen| matches!(seen, Seen::Handled(_))).count(), 0);
    assert_eq!(stage.address.len(), 2);
    stage.control.open();
    assert_eq!(stage.handled().await, 1);
    assert_eq!(stage.handled().await, 2);
}

pub async fn the_handler_can_become_ready_in_idle(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 8, quick(5)).await;
    stage.say(Say::CloseUntilIdle);
    stage.say(Say::Note(1));
    stage.control.open();
    assert_eq!(stage.see().await, Seen::Idle, "what was gathered is sent on before waiting");
    assert_eq!(stage.see().await, Seen::Handled(1));
}

pub async fn idle_follows_a_burst(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 8, quick(5)).await;
    for burst in 0..3 {
        (0..5).for_each(|n| stage.say(Say::Note(burst * 5 + n)));
        stage.say(Say::Close);
        stage.control.open();
        for n in 0..5 {
            assert_eq!(stage.see().await, Seen::Handled(burst * 5 + n));
        }
        assert_eq!(stage.see().await, Seen::Idle);
    }
}

pub async fn idle_comes_at_least_every_64_messages(runtime: RuntimeHandle) {
    let mut stage = Stage::closed(&runtime, 300, quick(5)).await;
    (0..300).for_each(|n| stage.say(Say::Note(n)));
    stage.control.open();
    let (mut handled, mut since_idle) = (0, 0);
    while handled < 300 || since_idle > 0 {
        match stage.see().await {
            Seen::Idle => since_idle = 0,
            Seen::Handled(_) => {
                handled += 1;
                since_idle += 1;
            }
            seen => panic!("unexpected {seen:?}"),
        }
        assert!(since_idle <= 64, "idle is overdue");
    }
}

pub async fn a_busy_actor_lets_others_run(runtime: RuntimeHandle) {
    let stage = Stage::new(&runtime, 4, quick(5));
    stage.control.introduce(&stage.address);
    stage.say(Say::Again);
    // On one thread, this task only runs if the actor yields while it has messages.
    let control: std::sync::Arc<Control> = stage.control.clone();
    let other = runtime.spawn(async move { control.release() });
    assert_eq!(within(&runtime, "the other task", other).await, Ok(()));
    stage.echo(1).await;
    stage.address.kill();
    stage.stopped().await;
}

pub async fn clones_of_an_address_reach_the_same_actor(runtime: RuntimeHandle) {
    let mut stage = Stage::new(&runtime, 8, quick(5));
    let clones: Vec<Address> = (0..4).map(|_| stage.address.clone()).collect();
    let (done, mut all_done) = mpsc::unbounded();
    for (n, address) in (0..).zip(clones) {
        let done = done.clone();
        drop(runtime.spawn(async move {
            assert!(address.send(note(n)).await.is_ok());
            let _ = done.unbounded_send(());
        }));
    }
    let mut handled = Vec::new();
    for _ in 0..4 {
        assert!(within(&runtime, "a sender", all_done.next()).await.is_some());
        handled.push(stage.handled().await);
    }
    handled.sort_unstable();
    assert_eq!(handled, [0, 1, 2, 3]);
}
