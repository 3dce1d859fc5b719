//! The task that hears: subscribes, again whenever that is lost, and notices what it may have missed.
//!
//! A process hears its own messages, heartbeats included. As long as they come back, others' do: a connection that is
//! half open, or a server that is paused, shows by its silence.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Subscription;
use super::link::{ATTEMPT, Link};
use super::packet::Packet;
use super::peers::{Heard, Peers};
use super::status::{DropCause, Status};
use crate::composition::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{Instant, RuntimeHandle, jitter};
use crate::value::Raw;

const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

pub(super) async fn run(link: Arc<Link>, engine: Weak<Engine>, runtime: RuntimeHandle) {
    let echo = runtime.now();
    let peers = Peers::default();
    let mut ear = Ear { peers, echo, echoed: false, missed: false, covered: false, link, engine, runtime };
    let (mut failures, mut backoff) = (0_u32, FIRST_BACKOFF);
    while ear.link.is_on(&ear.engine) {
        let began = ear.runtime.now();
        match ear.subscribe().await {
            Ok(subscription) => {
                ear.subscribed();
                ear.listen(subscription).await;
            }
            Err(error) => ear.link.status.failed(&error),
        }
        // One that ends as soon as it is made must not be made without a pause.
        let brief = ear.runtime.now().since(began) < ear.link.options.heartbeat;
        // A subscription to which nothing came was none.
        failures = if std::mem::take(&mut ear.echoed) { 0 } else { failures + 1 };
        if failures == 0 && !brief {
            backoff = FIRST_BACKOFF;
        }
        // What a tier held before the cache was built is not covered, nor is what it read while it was not subscribed yet.
        ear.missed = true;
        if failures > 0 {
            // Not back at once: from here on nothing is heard for a while.
            ear.disconnected();
        }
        if failures > 0 || brief {
            ear.runtime.sleep(jitter(backoff, ear.runtime.random())).await;
            backoff = backoff.saturating_mul(2).min(LONGEST_BACKOFF);
        }
    }
}

struct Ear {
    link: Arc<Link>,
    engine: Weak<Engine>,
    runtime: RuntimeHandle,
    peers: Peers,
    /// When its own messages were heard last, or since when they are due.
    echo: Instant,
    /// Whether its own messages have come back since it subscribed.
    echoed: bool,
    /// Something may have been missed, and has not been dropped for it.
    missed: bool,
    /// Whether the tiers rely on what is heard.
    covered: bool,
}

impl Ear {
    async fn subscribe(&mut self) -> Result<Box<dyn Subscription>> {
        // In a task of its own: a transport that panics fails one attempt.
        let (transport, on) = (Arc::clone(&self.link.transport), self.runtime.clone());
        let (began, limit) = (self.runtime.now(), transport.subscribe_limit().max(ATTEMPT));
        let mut task = self.runtime.spawn(async move { transport.subscribe(&on).await });
        let mut subscribed = self.runtime.deadline(began.after(ATTEMPT), &mut task).await;
        if subscribed.is_none() {
            // The attempt may take longer; what is shown meanwhile may not.
            self.disconnected();
            subscribed = self.runtime.deadline(began.after(limit), task).await;
        }
        match subscribed {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::new(ErrorKind::Panicked, "the backplane's transport panicked")),
            None => {
                let message = format!("the backplane took more than {} ms to subscribe", limit.as_millis());
                Err(Error::new(ErrorKind::Timeout, message))
            }
        }
    }

    fn subscribed(&mut self) {
        self.echo = self.runtime.now();
        self.peers.subscribed(self.echo);
        Status::one(&self.link.status.subscriptions);
        if self.link.is_up() {
            self.catch_up();
        }
        self.link.announce();
    }

    /// Its own message has come back. Only now others' are sure to come: with a way back alone, nobody would be told.
    fn echoed(&mut self) {
        self.echo = self.runtime.now();
        if std::mem::replace(&mut self.echoed, true) {
            return;
        }
        if !self.link.status.up.swap(true, Ordering::SeqCst)
            && let Some(engine) = self.engine.upgrade()
        {
            engine.backplane_changed(true);
        }
        self.cover();
        self.catch_up();
        self.link.changed.notify(usize::MAX);
    }

    fn catch_up(&mut self) {
        if std::mem::take(&mut self.missed) {
            self.drop_all(DropCause::Reconnected);
        }
    }

    /// Drops everything, once for each time that it was up.
    fn disconnected(&mut self) {
        if !self.link.status.up.swap(false, Ordering::SeqCst) {
            return;
        }
        if let Some(engine) = self.engine.upgrade() {
            engine.backplane_changed(false);
        }
        self.cover();
        self.link.status.peers.store(0, Ordering::Relaxed);
        self.missed = false;
        self.drop_all(DropCause::Disconnected);
        self.missed = true;
    }

    /// Whether all others are heard; else entries in unshared tiers live for the fallback's time.
    fn cover(&mut self) {
        let missing = self.peers.missing();
        self.link.status.missing.store(missing, Ordering::Relaxed);
        let covered = self.link.is_up() && missing == 0;
        if covered != self.covered {
            self.covered = covered;
            if let Some(engine) = self.engine.upgrade() {
                engine.backplane_covers(covered);
            }
        }
    }

    /// Hears until the subscription is lost, or the engine gone.
    async fn listen(&mut self, mut subscription: Box<dyn Subscription>) {
        let tick = self.link.options.heartbeat / 2;
        let mut check = self.runtime.now().after(tick);
        while self.link.is_on(&self.engine) {
            match self.runtime.deadline(check, subscription.next()).await {
                Some(Some(message)) => self.hear(&message),
                Some(None) => return,
                None => {}
            }
            let now = self.runtime.now();
            if now >= check {
                check = now.after(tick);
                if now.since(self.echo) >= self.link.options.silence {
                    let error = Error::new(ErrorKind::Timeout, "its own messages do not come back");
                    self.link.status.failed(&error);
                    // Nothing has been heard for long enough: another attempt may take its time.
                    return self.disconnected();
                }
                let lost = self.peers.lose(now, self.link.options.silence);
                // Before the drop: what is refilled from here on is bounded.
                self.cover();
                if lost {
                    self.drop_all(DropCause::PeerLost);
                }
                self.link.status.peers.store(self.peers.len(), Ordering::Relaxed);
            }
        }
    }

    fn hear(&mut self, message: &Raw) {
        let now = self.runtime.now();
        let Ok(packet) = Packet::decode(message) else {
            return self.drop_all(DropCause::Unreadable);
        };
        if packet.node == self.link.node {
            return self.echoed();
        }
        let has_notes = !packet.notes.is_empty();
        let heard = self.peers.hear(packet.node, packet.number, has_notes, now);
        Status::add(&self.link.status.heard, packet.notes.len() as u64);
        if let Some(engine) = self.engine.upgrade() {
            for note in packet.notes {
                engine.hear(&self.link, note);
            }
        }
        match heard {
            Heard::InOrder => {}
            Heard::Gap => {
                Status::one(&self.link.status.gaps);
                self.drop_all(DropCause::Gap);
            }
            Heard::Stranger => self.drop_all(DropCause::Stranger),
        }
        if packet.leaving {
            self.peers.left(packet.node);
        }
        self.cover();
        self.link.status.peers.store(self.peers.len(), Ordering::Relaxed);
    }

    fn drop_all(&self, cause: DropCause) {
        if self.missed && !self.link.is_up() {
            // All is dropped once it is up, and bounded by the fallback until then.
            return;
        }
        if let Some(engine) = self.engine.upgrade() {
            engine.drop_unshared(&self.link, cause);
        }
    }
}
