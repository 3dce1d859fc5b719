//! A cluster: which node has which slot, and how commands find their way when that changes.
//!
//! The map comes from any node and is read again when a node says that it is wrong or cannot be reached. A command that
//! is redirected follows at once; a batch is split by node, and its parts travel at the same time.

mod map;
mod sending;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::ConnectionInfo;

use super::node::Node;
use super::shared::Shared;
use super::state::ConnectionState;
use crate::error::Result;
use crate::runtime::Instant;
use map::Map;

/// The shortest time between two looks at the map.
const REFRESH_EVERY: Duration = Duration::from_millis(200);

/// How long a connected node may take with a command that others can take too.
const ANSWER: Duration = Duration::from_millis(300);

pub(super) struct Cluster(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    seeds: Vec<ConnectionInfo>,
    map: ArcSwap<Map>,
    /// By address: those of the map, the seeds, and those that were heard of since the map was read.
    nodes: Mutex<HashMap<String, Arc<Node>>>,
    refreshed: Mutex<Refreshed>,
}

/// The last look at the map.
#[derive(Default)]
struct Refreshed {
    /// Under which opening of the backend: what follows ends with its runtime.
    opening: u64,
    at: Instant,
    /// A task is at it.
    running: bool,
}

/// The task that looks at the map; however it ends, another may be started.
struct Refreshing(Arc<Inner>, u64);

impl Drop for Refreshing {
    fn drop(&mut self) {
        let mut refreshed = self.0.refreshed();
        if refreshed.opening == self.1 {
            refreshed.running = false;
        }
    }
}

impl Cluster {
    pub(super) fn new(shared: &Arc<Shared>, seeds: Vec<ConnectionInfo>) -> Self {
        Self(Arc::new(Inner {
            shared: Arc::clone(shared),
            seeds,
            map: ArcSwap::default(),
            nodes: Mutex::default(),
            refreshed: Mutex::default(),
        }))
    }

    pub(super) fn state(&self) -> (ConnectionState, usize) {
        let map = self.0.map.load();
        let states = map.masters.iter().map(|(_, node)| node.state());
        // A master that nobody has asked yet says nothing about the cluster.
        let worst = |state: &ConnectionState| match state {
            ConnectionState::Idle => 0,
            ConnectionState::Connected => 1,
            ConnectionState::Connecting => 2,
            ConnectionState::Disconnected => 3,
        };
        (states.max_by_key(worst).unwrap_or(ConnectionState::Idle), map.masters.len())
    }

    pub(super) async fn masters(&self) -> Result<Vec<Arc<Node>>> {
        let map = self.map().await?;
        Ok(map.masters.iter().map(|(_, node)| Arc::clone(node)).collect())
    }

    /// Reads the map anew and connects to the masters that are not connected. One that answers is enough to go on:
    /// the others' keys are misses.
    pub(super) async fn connect_now(&self) -> Result<()> {
        self.0.refresh().await?;
        let masters = self.masters().await?;
        let is_down = |node: &&Arc<Node>| node.state() == ConnectionState::Disconnected;
        let (down, others): (Vec<_>, Vec<_>) = masters.iter().partition(is_down);
        // Callers are not made to wait for those that were away, unless all were.
        down.iter().for_each(|node| node.hurry());
        let mut failed = Ok(());
        for nodes in [others, down] {
            let mut answers: FuturesUnordered<_> = nodes.into_iter().map(|node| node.connect_now()).collect();
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(()) => return Ok(()),
                    Err(error) => failed = Err(error),
                }
            }
        }
        failed
    }

    /// For each of the slots asked for, which of the copies at `copies` is on the same node.
    pub(super) async fn nearest(
        &self,
        copies: &[u16],
        asked: impl Iterator<Item = u16>,
    ) -> Result<Vec<usize>> {
        let map = self.map().await?;
        let mut nearest: HashMap<Option<usize>, usize> = HashMap::new();
        let at = |node: &Arc<Node>| Arc::as_ptr(node) as usize;
        let of = |slot| {
            let owner = map.owner(slot);
            *nearest.entry(owner.map(at)).or_insert_with(|| {
                let same = |copy: &u16| {
                    owner.is_some_and(|owner| map.owner(*copy).is_some_and(|node| Arc::ptr_eq(node, owner)))
                };
                copies.iter().position(same).unwrap_or(0)
            })
        };
        Ok(asked.map(of).collect())
    }

    async fn map(&self) -> Result<arc_swap::Guard<Arc<Map>>> {
        let map = self.0.map.load();
        if !map.masters.is_empty() {
            return Ok(map);
        }
        self.0.refresh().await?;
        Ok(self.0.map.load())
    }

    /// Reads the map again soon, unless that has just been done or is under way.
    fn refresh_later(&self) {
        let inner = &self.0;
        let Ok(runtime) = inner.shared.runtime() else { return };
        let (opening, now) = (inner.shared.openings(), runtime.now());
        {
            let mut last = inner.refreshed();
            let soon = last.running || now.since(last.at) < REFRESH_EVERY;
            if last.opening == opening && soon {
                return;
            }
            *last = Refreshed { opening, at: now, running: true };
        }
        let refreshing = Refreshing(Arc::clone(inner), opening);
        runtime.spawn(async move {
            // Without an answer the old map stays; the next failure asks again.
            let _ = refreshing.0.refresh().await;
        });
    }
}
