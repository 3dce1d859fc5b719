//! The task that publishes: what waits goes as one message, without a timer; with nothing to tell, a heartbeat.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::link::{ATTEMPT, Link};
use super::packet::Packet;
use super::status::Status;
use crate::composition::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{RuntimeHandle, jitter};
use crate::value::Raw;

const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

pub(super) async fn run(link: Arc<Link>, engine: Weak<Engine>, runtime: RuntimeHandle) {
    let mut number = 0;
    // The first one is a heartbeat that says: I am new.
    let mut next = runtime.now();
    loop {
        let filled = link.outbox.filled();
        let is_asked = || link.leaving.load(Ordering::SeqCst) || link.announce.load(Ordering::SeqCst);
        if link.outbox.len() == 0 && !is_asked() {
            let _ = runtime.deadline(next, filled).await;
        }
        if engine.strong_count() == 0 {
            return;
        }
        let notes = link.outbox.take(link.options.batch);
        let told = notes.len() as u64;
        let leaving = link.leaving.load(Ordering::SeqCst) && link.outbox.len() == 0;
        let announced = link.announce.swap(false, Ordering::SeqCst);
        if told == 0 && !leaving && !announced && runtime.now() < next {
            continue;
        }
        number += u64::from(told > 0);
        let packet = Packet { node: link.node, number, leaving, notes };
        if let Ok(message) = packet.encode()
            && !deliver(&link, &engine, &runtime, message).await
        {
            return;
        }
        Status::add(&link.status.told, told);
        next = runtime.now().after(jitter(link.options.heartbeat, runtime.random()));
        if leaving {
            link.left.store(true, Ordering::SeqCst);
            link.changed.notify(usize::MAX);
            return;
        }
    }
}

/// Publishes a message, however often it takes; `false` if the cache is gone meanwhile.
async fn deliver(link: &Arc<Link>, engine: &Weak<Engine>, runtime: &RuntimeHandle, message: Raw) -> bool {
    let mut backoff = FIRST_BACKOFF;
    loop {
        match attempt(link, runtime, message.clone()).await {
            Ok(()) => {
                Status::one(&link.status.published);
                return true;
            }
            Err(error) => {
                Status::one(&link.status.publish_failures);
                link.status.failed(&error);
            }
        }
        if engine.strong_count() == 0 {
            return false;
        }
        runtime.sleep(jitter(backoff, runtime.random())).await;
        backoff = backoff.saturating_mul(2).min(LONGEST_BACKOFF);
    }
}

async fn attempt(link: &Arc<Link>, runtime: &RuntimeHandle, message: Raw) -> Result<()> {
    // In a task of its own: a transport that panics fails one attempt.
    let (transport, on) = (Arc::clone(&link.transport), runtime.clone());
    let task = runtime.spawn(async move { transport.publish(&on, message).await });
    match runtime.deadline(runtime.now().after(ATTEMPT), task).await {
        Some(Ok(result)) => result,
        Some(Err(_)) => Err(Error::new(ErrorKind::Panicked, "the backplane's transport panicked")),
        None => Err(Error::new(ErrorKind::Timeout, "the backplane took more than 1 s to publish")),
    }
}
