//! A mutation on its way to one tier: sent, and waited for until the tier has settled it.

use futures_channel::oneshot;

use super::super::engine::Engine;
use super::super::read::FAR;
use super::super::route::RouteTier;
use super::Planned;
use crate::error::{Error, ErrorKind};
use crate::key::CacheKey;
use crate::observe::Began;
use crate::planted::{Plant, planted};
use crate::runtime::{Address, BoxFuture, Envelope, Instant, RejectReason};
use crate::tier::{Accepting, Change, Counters, Message, Mutation, Open, Settled};
use crate::value::Stamp;

/// A mutation on its way to one tier.
pub(in crate::composition) struct Sent {
    pub(super) tier: RouteTier,
    key: CacheKey,
    stamp: Stamp,
    deadline: Instant,
    answer: oneshot::Receiver<Settled>,
    failed: Option<Error>,
    /// `None`: it is answered, or will be by its deadline.
    unwatched: Option<Unwatched>,
}

/// What whoever waits needs to settle it at its deadline, where the tier does not.
struct Unwatched {
    change: Change,
    open: Open,
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
    let (key, stamp) = (mutation.key().clone(), mutation.stamp());
    let (change, open) = (mutation.change.clone(), mutation.open.clone());
    let (deadline, sending) = match tier.core.accept(mutation) {
        Accepting::Through(mutation) => {
            return send_through(Planned { tier, mutation, answer, failed });
        }
        Accepting::Settled { deadline } => (deadline, None),
        Accepting::Waiting { deadline, waiting } => (deadline, Some(waiting)),
    };
    Sent { tier, key, stamp, deadline, answer, failed, unwatched: Some(Unwatched { change, open, sending }) }
}

fn send_through(Planned { tier, mutation, answer, failed }: Planned) -> Sent {
    let (key, stamp, deadline) = (mutation.key().clone(), mutation.stamp(), mutation.deadline);
    let unwatched = take(&tier, mutation);
    Sent { tier, key, stamp, deadline, answer, failed, unwatched }
}

/// Has a tier take a mutation, at once if it may.
fn take(tier: &RouteTier, mutation: Mutation) -> Option<Unwatched> {
    let mutation = tier.core.take_at_once(mutation)?;
    // As reads do; the ledger takes mutations in any order, so that one in the mailbox may come after this.
    let mutation = if tier.address.is_empty() { tier.core.write_at_once(mutation)? } else { mutation };
    let (change, open) = (mutation.change.clone(), mutation.open.clone());
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
    Some(Unwatched { change, open, sending })
}

impl Engine {
    /// Waits until a tier has settled the mutation; at its deadline, it is settled by quarantine.
    pub(in crate::composition) async fn settle(&self, sent: Sent) -> Settled {
        let Sent { tier, key, stamp, deadline, answer, failed, unwatched } = sent;
        let began = Began::now(&self.runtime);
        let settled = match unwatched {
            // The mutation was dropped, which has quarantined its key.
            None => answer.await.unwrap_or_else(|_| Err(restarted())),
            Some(unwatched) => self.settle_by(deadline, &tier, (&key, stamp), unwatched, answer).await,
        };
        tier.core.meter.wrote(began, &self.runtime);
        let settled = match settled {
            Ok(settlement) => match tier.core.overtaken(&key, stamp, settlement) {
                None => Ok(settlement),
                Some(written) => match self.runtime.deadline(deadline, written).await {
                    Some(written) => written.map(|()| settlement),
                    None => Err(tier.core.overdue_write()),
                },
            },
            failed => failed,
        };
        let settled = settled.and_then(|settlement| failed.map_or(Ok(settlement), Err));
        settled.map_err(|error| error.at_tier(&tier.core.label).for_key(&key))
    }

    async fn settle_by(
        &self,
        deadline: Instant,
        tier: &RouteTier,
        (key, stamp): (&CacheKey, Stamp),
        Unwatched { change, open, sending }: Unwatched,
        mut answer: oneshot::Receiver<Settled>,
    ) -> Settled {
        // What is settled already needs no timer.
        if let Some(settled) = answer.try_recv().ok().flatten() {
            return settled;
        }
        let waiting = async {
            if let Some(sending) = sending {
                sending.await;
            }
            answer.await
        };
        let deadline = if planted(Plant::NoDeadline) { deadline.after(FAR) } else { deadline };
        match self.runtime.deadline(deadline, waiting).await {
            Some(settled) => settled.unwrap_or_else(|_| Err(restarted())),
            None => {
                tier.core.expire(key, stamp, change, &open);
                Err(tier.core.overdue_write())
            }
        }
    }
}

pub(super) fn restarted() -> Error {
    Error::new(ErrorKind::Restarted, "the tier was restarted before it answered; its key is in quarantine")
}
