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
    let mut ear = Ear { peers: Peers::default(), echo, covered: false, link, engine, runtime };
    // What a tier held before the cache was built is not covered, nor is what it read while it was not subscribed yet.
    let (mut missed, mut failures, mut backoff) = (false, 0_u32, FIRST_BACKOFF);
    while ear.link.is_on(&ear.engine) {
        let brief = match ear.subscribe().await {
            Ok(subscription) => {
                ear.subscribed();
                if missed {
                    ear.drop_all(DropCause::Reconnected);
                }
                failures = 0;
                let began = ear.runtime.now();
                ear.listen(subscription).await;
                // One that ends as soon as it is made must not be made without a pause.
                let brief = ear.runtime.now().since(began) < ear.link.options.heartbeat;
                if !brief {
                    backoff = FIRST_BACKOFF;
                }
                brief
            }
            Err(error) => {
                failures += 1;
                ear.link.status.failed(&error);
                false
            }
        };
        missed = true;
        if failures == 1 {
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
    /// When its own messages were heard last.
    echo: Instant,
    /// Whether the tiers rely on what is heard.
    covered: bool,
}

impl Ear {
    async fn subscribe(&self) -> Result<Box<dyn Subscription>> {
        // In a task of its own: a transport that panics fails one attempt.
        let (transport, on) = (Arc::clone(&self.link.transport), self.runtime.clone());
        let task = self.runtime.spawn(async move { transport.subscribe(&on).await });
        match self.runtime.deadline(self.runtime.now().after(ATTEMPT), task).await {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::new(ErrorKind::Panicked, "the backplane's transport panicked")),
            None => Err(Error::new(ErrorKind::Timeout, "the backplane took more than 1 s to subscribe")),
        }
    }

    fn subscribed(&mut self) {
        self.echo = self.runtime.now();
        self.peers.subscribed(self.echo);
        Status::one(&self.link.status.subscriptions);
        if !self.link.status.up.swap(true, Ordering::SeqCst)
            && let Some(engine) = self.engine.upgrade()
        {
            engine.backplane_changed(true);
        }
        self.cover();
        self.link.changed.notify(usize::MAX);
    }

    fn disconnected(&mut self) {
        if self.link.status.up.swap(false, Ordering::SeqCst)
            && let Some(engine) = self.engine.upgrade()
        {
            engine.backplane_changed(false);
        }
        self.cover();
        self.link.status.peers.store(0, Ordering::Relaxed);
        self.drop_all(DropCause::Disconnected);
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
            self.echo = now;
            return;
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
        if let Some(engine) = self.engine.upgrade() {
            engine.drop_unshared(&self.link, cause);
        }
    }
}
