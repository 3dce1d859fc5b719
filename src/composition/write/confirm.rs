//! Whose confirmation makes a success, and who is waited for. Every tier settles the key, whatever the policy.

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::super::engine::Engine;
use super::super::route::{Route, RouteTier};
use super::Planned;
use super::send::{Sent, send};
use crate::error::{Error, ErrorKind, Result};
use crate::planted::{Plant, planted};
use crate::tier::{Change, Settled};

impl Engine {
    pub(in crate::composition) async fn write_all(&self, mutations: Vec<Planned<'_>>) -> Vec<Settled> {
        // All are sent before any is awaited.
        let mut sent: Vec<_> = mutations.into_iter().map(send).collect();
        if sent.len() > 1 {
            return join_all(sent.iter_mut().map(|sent| self.settle(sent))).await;
        }
        match sent.first_mut() {
            Some(sent) => vec![self.settle(sent).await],
            None => Vec::new(),
        }
    }

    pub(super) async fn write_in_turn(&self, mutations: Vec<Planned<'_>>) -> Result<()> {
        let mut result = Ok(());
        for mut planned in mutations {
            if result.is_err() {
                // What the tiers below hold is older than what those above may show.
                planned.mutation.change = Change::Remove;
            }
            planned.mutation.deadline = self.runtime.now().after(planned.tier.core.options.write_deadline);
            let settled = self.settle(&mut send(planned)).await;
            result = result.and(settled.map(drop));
        }
        result
    }

    pub(super) async fn write_race<'a>(&self, mut mutations: Vec<Planned<'a>>) -> Result<()> {
        let keys: Vec<_> = mutations
            .iter_mut()
            .map(|Planned { tier, mutation, .. }| {
                let (key, change, open) =
                    (mutation.key().clone(), mutation.change.clone(), mutation.open.share());
                (&tier.core, key, mutation.stamp(), change, open)
            })
            .collect();
        let send = |planned: Planned<'a>| (matches!(planned.mutation.change, Change::Set(_)), send(planned));
        // Queues first: without them nobody wins.
        let (queued, others): (Vec<_>, Vec<_>) =
            mutations.into_iter().map(send).partition(|(_, sent)| sent.core.behind.is_some());
        let mut queues = queued.len();
        let mut unqueued = None;
        let race = |(queue, (stores, mut sent)): (bool, (bool, Sent<'a>))| async move {
            (queue, stores, self.settle(&mut sent).await)
        };
        let queued = queued.into_iter().map(|sent| (true, sent));
        let mut racing: FuturesUnordered<_> =
            queued.chain(others.into_iter().map(|sent| (false, sent))).map(race).collect();
        let mut failure = None;
        let mut won = false;
        while let Some((queue, stores, settled)) = racing.next().await {
            queues -= usize::from(queue);
            if let Err(error) = &settled
                && queue
            {
                unqueued = unqueued.or(Some(error.clone()));
            }
            won |= stores && settled.is_ok();
            match settled {
                _ if queues == 0 && unqueued.is_none() && won => {
                    // Those that have not answered settle by quarantine, until they confirm. No effect on the others.
                    for (core, key, stamp, change, open) in
                        keys.into_iter().filter(|_| !planted(Plant::RaceLoserShows))
                    {
                        core.expire(&key, stamp, change, &open);
                    }
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        unqueued.or(failure).map_or_else(|| nothing().map(drop), Err)
    }
}

/// Without its queue having it, a mutation of a write-behind tier is not acknowledged, whoever else confirmed it.
pub(super) fn queued(route: &Route, results: &[Settled]) -> Result<()> {
    let of_queue = |(tier, result): (&RouteTier, &Settled)| {
        tier.core.behind.as_ref().and_then(|_| result.as_ref().err().cloned())
    };
    route.written.iter().zip(results).find_map(of_queue).map_or(Ok(()), Err)
}

pub(super) fn any(results: Vec<Settled>) -> Result<()> {
    let mut failure = None;
    for result in results {
        match result {
            Ok(_) => return Ok(()),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or_else(|| nothing().map(drop), Err)
}

pub(super) fn all(results: Vec<Settled>) -> Result<()> {
    results.into_iter().try_for_each(|result| result.map(drop))
}

pub(super) fn last(mut results: Vec<Settled>) -> Result<()> {
    results.pop().unwrap_or_else(nothing).map(drop)
}

pub(in crate::composition) fn nothing() -> Settled {
    Err(Error::new(ErrorKind::Unsupported, "every tier of the cache is read-only"))
}

/// The results of the tiers that were to store the value.
pub(super) fn those(results: Vec<Settled>, stored: &[bool]) -> Vec<Settled> {
    results.into_iter().zip(stored).filter_map(|(result, stored)| stored.then_some(result)).collect()
}
