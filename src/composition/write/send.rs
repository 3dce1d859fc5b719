//! A mutation on its way to one tier: sent, and waited for until the tier has settled it.

use std::sync::Arc;

use futures_channel::oneshot;

use super::super::engine::Engine;
use super::super::read::FAR;
use super::Planned;
use crate::error::{Error, ErrorKind};
use crate::key::CacheKey;
use crate::observe::Began;
use crate::planted::{Plant, planted};
use crate::runtime::{Address, BoxFuture, Envelope, Instant, RejectReason};
use crate::tier::{Accepting, Change, Counters, Message, Mutation, Open, Settled, TierCore};
use crate::value::Stamp;

/// A mutation on its way to one tier.
pub(in crate::composition) struct Sent<'a> {
    pub(super) core: &'a Arc<TierCore>,
    key: CacheKey,
    stamp: Stamp,
    deadline: Instant,
    answer: oneshot::Receiver<Settled>,
    failed: Option<Error>,
    /// `None`: it is answered, or will be by its deadline.
    unwatched: Option<Box<Unwatched>>,
}

/// What whoever waits needs to settle it at its deadline, where the tier does not.
struct Unwatched {
    change: Change,
    open: Open,
    /// Still waiting for room in the mailbox.
    sending: Option<BoxFuture<'static, ()>>,
}

/// Sends a mutation to its tier; if the mailbox is full, waiting for room is part of settling it.
pub(in crate::composition) fn send(Planned { tier, mutation, answer, failed }: Planned<'_>) -> Sent<'_> {
    Sent { failed, ..send_to(&tier.core, &tier.address, mutation, answer) }
}

/// The same, to the tier's actor at this address.
pub(in crate::composition) fn send_to<'a>(
    core: &'a Arc<TierCore>,
    address: &Address,
    mutation: Mutation,
    answer: oneshot::Receiver<Settled>,
) -> Sent<'a> {
    let (key, stamp) = (mutation.key().clone(), mutation.stamp());
    let (deadline, unwatched) = match core.behind {
        Some(_) => queue(core, address, mutation),
        None => (mutation.deadline, take(core, address, mutation)),
    };
    Sent { core, key, stamp, deadline, answer, failed: None, unwatched: unwatched.map(Box::new) }
}

/// Has a write-behind tier queue a mutation, in the caller's own task; says until when it is to be waited for.
fn queue(core: &Arc<TierCore>, address: &Address, mut mutation: Mutation) -> (Instant, Option<Unwatched>) {
    let (change, open) = (mutation.change.clone(), mutation.open.share());
    let (deadline, sending) = match core.accept(mutation) {
        Accepting::Through(mutation) => return (mutation.deadline, take(core, address, mutation)),
        Accepting::Settled { deadline } => (deadline, None),
        Accepting::Waiting { deadline, waiting } => (deadline, Some(waiting)),
    };
    (deadline, Some(Unwatched { change, open, sending }))
}

/// Has a tier take a mutation, at once if it may.
fn take(core: &Arc<TierCore>, address: &Address, mutation: Mutation) -> Option<Unwatched> {
    let mutation = core.take_at_once(mutation)?;
    // As reads do; the ledger takes mutations in any order, so that one in the mailbox may come after this.
    let mut mutation = if address.is_empty() { core.write_at_once(mutation)? } else { mutation };
    let (change, open) = (mutation.change.clone(), mutation.open.share());
    let sending = match address.try_send(Envelope::new(Message::Mutate(mutation))) {
        Ok(()) => None,
        Err(rejected) if rejected.reason == RejectReason::Full => {
            Counters::one(&core.counters.waited);
            let address = Address::clone(address);
            Some(Box::pin(async move { drop(address.send(rejected.message).await) }) as BoxFuture<'static, ()>)
        }
        // Down or stopped: dropping it quarantines the key.
        Err(_) => None,
    };
    Some(Unwatched { change, open, sending })
}

impl Engine {
    /// Waits until a tier has settled the mutation; at its deadline, it is settled by quarantine.
    pub(in crate::composition) async fn settle(&self, sent: &mut Sent<'_>) -> Settled {
        let core = sent.core;
        let began = Began::now(&self.runtime);
        // What is rare is boxed, so that those who wait for an answer carry none of it.
        let settled = match sent.unwatched.take() {
            // The mutation was dropped, which has quarantined its key.
            None => (&mut sent.answer).await.unwrap_or_else(|_| Err(restarted())),
            Some(unwatched) => Box::pin(self.settle_by(sent, *unwatched)).await,
        };
        core.meter.wrote(began, &self.runtime);
        let settled = match settled {
            Ok(settlement) => match core.overtaken(&sent.key, sent.stamp, settlement) {
                None => Ok(settlement),
                Some(written) => match Box::pin(self.runtime.deadline(sent.deadline, written)).await {
                    Some(written) => written.map(|()| settlement),
                    None => Err(core.overdue_write()),
                },
            },
            failed => failed,
        };
        let settled = settled.and_then(|settlement| sent.failed.take().map_or(Ok(settlement), Err));
        settled.map_err(|error| error.at_tier(&core.label).for_key(&sent.key))
    }

    async fn settle_by(
        &self,
        Sent { core, key, stamp, deadline, answer, .. }: &mut Sent<'_>,
        Unwatched { change, open, sending }: Unwatched,
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
        let deadline = if planted(Plant::NoDeadline) { deadline.after(FAR) } else { *deadline };
        match self.runtime.deadline(deadline, waiting).await {
            Some(settled) => settled.unwrap_or_else(|_| Err(restarted())),
            None => {
                core.expire(key, *stamp, change, &open);
                Err(core.overdue_write())
            }
        }
    }
}

pub(super) fn restarted() -> Error {
    Error::new(ErrorKind::Restarted, "the tier was restarted before it answered; its key is in quarantine")
}
