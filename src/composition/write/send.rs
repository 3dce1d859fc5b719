//! A mutation on its way to one tier: sent, and waited for until the tier has settled it.

use std::sync::Arc;

use futures_channel::oneshot;

use super::super::engine::Engine;
use super::super::read::FAR;
use super::super::route::RouteTier;
use super::Planned;
use crate::error::{Error, ErrorKind};
use crate::key::CacheKey;
use crate::observe::Began;
use crate::order::Write;
use crate::planted::{Plant, planted};
use crate::runtime::{Address, BoxFuture, Envelope, Instant, RejectReason};
use crate::tier::{Accepting, Change, Counters, Message, Open, Settled};

/// A mutation on its way to one tier.
pub(in crate::composition) struct Sent {
    pub(super) tier: RouteTier,
    pub(super) key: CacheKey,
    pub(super) change: Change,
    pub(super) write: Arc<Write>,
    deadline: Instant,
    answer: oneshot::Receiver<Settled>,
    pub(super) open: Open,
    failed: Option<Error>,
    /// Still waiting for room in the mailbox.
    sending: Option<BoxFuture<'static, ()>>,
}

/// Sends a mutation to its tier; if the mailbox is full, waiting for room is part of settling it.
pub(in crate::composition) fn send(planned: Planned) -> Sent {
    if planned.tier.core.behind.is_some() {
        return send_behind(planned);
    }
    send_through(planned)
}

/// Queues a mutation in a write-behind tier, in the caller's own task.
fn send_behind(planned: Planned) -> Sent {
    let Planned { tier, mutation, answer, failed } = planned;
    let key = mutation.key().clone();
    let change = mutation.change.clone();
    let write = Arc::clone(&mutation.write);
    let open = mutation.open.clone();
    let (deadline, sending) = match tier.core.accept(mutation) {
        Accepting::Through(mutation) => {
            return send_through(Planned { tier, mutation, answer, failed });
        }
        Accepting::Settled { deadline } => (deadline, None),
        Accepting::Waiting { deadline, waiting } => (deadline, Some(waiting)),
    };
    Sent { tier, key, change, write, deadline, answer, open, failed, sending }
}

fn send_through(Planned { tier, mutation, answer, failed }: Planned) -> Sent {
    let key = mutation.key().clone();
    let change = mutation.change.clone();
    let write = Arc::clone(&mutation.write);
    let open = mutation.open.clone();
    let deadline = mutation.deadline;
    let Some(mutation) = tier.core.take_at_once(mutation) else {
        return Sent { tier, key, change, write, deadline, answer, open, failed, sending: None };
    };
    // As reads do; the ledger takes mutations in any order, so that one in the mailbox may come after this.
    let mutation = if tier.address.is_empty() { tier.core.write_at_once(mutation) } else { Some(mutation) };
    let Some(mutation) = mutation else {
        return Sent { tier, key, change, write, deadline, answer, open, failed, sending: None };
    };
    let sending = match tier.address.try_send(Envelope::new(Message::Mutate(mutation))) {
        Ok(()) => None,
        Err(rejected) if rejected.reason == RejectReason::Full => {
            Counters::one(&tier.core.counters.waited);
            let address = Address::clone(&tier.address);
            Some(Box::pin(async move { drop(address.send(rejected.message).await) }) as BoxFuture<'static, ()>)
        }
        // Down or stopped: dropping it quarantines the key.
        Err(_) => None,
    };
    Sent { tier, key, change, write, deadline, answer, open, failed, sending }
}

impl Engine {
    /// Waits until a tier has settled the mutation; at its deadline, settles it by quarantine.
    pub(in crate::composition) async fn settle(&self, sent: Sent) -> Settled {
        let Sent { tier, key, change, write, deadline, mut answer, open, failed, sending } = sent;
        let stamp = write.stamp;
        let began = Began::now(&self.runtime);
        // The stripe is released with the last mutation, not with the last waiter.
        drop(write);
        // What is settled already needs no timer.
        let at_once = answer.try_recv().ok().flatten();
        let waiting = async {
            if let Some(sending) = sending {
                sending.await;
            }
            answer.await
        };
        let deadline = if planted(Plant::NoDeadline) { deadline.after(FAR) } else { deadline };
        let settled = match at_once {
            Some(settled) => settled,
            None => match self.runtime.deadline(deadline, waiting).await {
                Some(Ok(settled)) => settled,
                // The mutation was dropped, which has quarantined its key.
                Some(Err(_)) => Err(restarted()),
                None => {
                    tier.core.expire(&key, stamp, change, &open);
                    Err(timeout(&tier))
                }
            },
        };
        tier.core.meter.wrote(began, &self.runtime);
        let settled = match settled {
            Ok(settlement) => match tier.core.overtaken(&key, stamp, settlement) {
                None => Ok(settlement),
                Some(written) => match self.runtime.deadline(deadline, written).await {
                    Some(written) => written.map(|()| settlement),
                    None => Err(timeout(&tier)),
                },
            },
            failed => failed,
        };
        let settled = settled.and_then(|settlement| failed.map_or(Ok(settlement), Err));
        settled.map_err(|error| error.at_tier(&tier.core.label).for_key(&key))
    }
}

pub(super) fn restarted() -> Error {
    Error::new(ErrorKind::Restarted, "the tier was restarted before it answered; its key is in quarantine")
}

pub(super) fn timeout(tier: &RouteTier) -> Error {
    let deadline = tier.core.options.write_deadline;
    Error::new(
        ErrorKind::Timeout,
        format!("not confirmed within the write deadline of {} ms", deadline.as_millis()),
    )
}
