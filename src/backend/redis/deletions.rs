//! What clears hide is deleted in the background, in pieces, one clear after the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Value;

use super::clears::MAX_REGIONS;
use super::failure;
use super::script::SWEEP_UP_TO;
use super::servers::{Keyed, Servers};
use super::shared::Shared;
use super::state::Counts;
use super::turns::{Turns, Waiting};
use crate::backend::Scope;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::jitter;
use crate::value::Stamp;

/// Keys that one step of the deletion looks at.
const PIECE: usize = 500;

/// Between two steps, so that the store has time for others.
const PAUSE: Duration = Duration::from_millis(1);

/// For how long a step may take: a connection whose other end is gone must not hold a deletion up for ever.
const STEP: Duration = Duration::from_secs(3);

/// A deletion that fails is tried again, first after this, then after twice as long each time.
pub(super) const FIRST_RETRY: Duration = Duration::from_secs(1);
const RETRIES: u32 = 8;

#[derive(Default)]
pub(super) struct Deletions(Arc<Turns<Cleared>>);

impl Deletions {
    /// Deletes what a clear hides, in the background, behind what else is to be deleted.
    pub(super) fn add(&self, scope: &Scope, stamp: Stamp, shared: &Arc<Shared>, servers: &Arc<Servers>) {
        if shared.runtime().is_ok() {
            self.0.with(|cleared| cleared.add(scope, stamp));
            self.resume(shared, servers);
        }
    }

    /// Goes on with what is to be deleted, unless someone is at it.
    pub(super) fn resume(&self, shared: &Arc<Shared>, servers: &Arc<Servers>) {
        let Ok(runtime) = shared.runtime() else { return };
        let Some(turn) = self.0.begin(shared.openings()) else { return };
        let waiting = Arc::downgrade(&self.0);
        let (shared, servers) = (Arc::clone(shared), Arc::downgrade(servers));
        runtime.spawn(async move {
            while let Some(next) = turn.next() {
                let Some(servers) = servers.upgrade() else { return };
                let (mut pause, mut progress) = (FIRST_RETRY, Progress::default());
                // Given up at last, the rest stays hidden until it expires.
                for _ in 0..RETRIES {
                    let up_to = Some(next.1);
                    if sweep(&next.0, up_to, &mut progress, |_| false, &shared, &servers).await.is_ok() {
                        break;
                    }
                    let Ok(runtime) = shared.runtime() else { return };
                    runtime.sleep(jitter(pause, runtime.random())).await;
                    pause *= 2;
                }
                let Some(waiting) = waiting.upgrade() else { return };
                waiting.with(|cleared| cleared.done(&next));
            }
        });
    }
}

/// What is still to be deleted: the oldest first, each scope once. Past [`MAX_REGIONS`] the oldest goes: it stays hidden
/// until it expires.
#[derive(Default)]
struct Cleared(VecDeque<(Scope, Stamp)>);

impl Cleared {
    fn add(&mut self, scope: &Scope, stamp: Stamp) {
        if let Some((_, known)) = self.0.iter_mut().find(|(known, _)| known == scope) {
            *known = stamp.max(*known);
            return;
        }
        self.0.push_back((scope.clone(), stamp));
        if self.0.len() > MAX_REGIONS {
            self.0.pop_front();
        }
    }

    /// It has been deleted, or given up. What was cleared again meanwhile stays.
    fn done(&mut self, done: &(Scope, Stamp)) {
        if self.0.front() == Some(done) {
            self.0.pop_front();
        }
    }
}

impl Waiting for Cleared {
    type Piece = (Scope, Stamp);

    fn next(&self) -> Option<Self::Piece> {
        self.0.front().cloned()
    }
}

/// How far a sweep has come.
#[derive(Default)]
pub(super) struct Progress {
    /// Nodes that are done.
    nodes: usize,
    cursor: Option<Vec<u8>>,
    /// Connections made until then: a cursor is of no use to another server, nor to one that was restarted.
    connects: u64,
}

/// Deletes the entries in `scope` up to `stamp`, or all of them, piece by piece, but for those with a name to `spare`. Goes
/// on where an earlier one stopped, if that is known still.
pub(super) async fn sweep(
    scope: &Scope,
    stamp: Option<Stamp>,
    progress: &mut Progress,
    spare: impl Fn(&[u8]) -> bool,
    shared: &Shared,
    servers: &Servers,
) -> Result<()> {
    let runtime = shared.runtime()?;
    let overdue =
        || Err(Error::new(ErrorKind::Unavailable, "Redis took more than 3 s for a step of a deletion"));
    let region = match scope {
        Scope::Prefix(region) => Some(&**region),
        Scope::All => None,
    };
    let pattern = shared.keyspace.pattern(region);
    let nodes = servers.all().await?;
    let connects = shared.counts.connects.load(Ordering::Relaxed);
    if progress.connects != connects {
        *progress = Progress { connects, ..Progress::default() };
    }
    while let Some(node) = nodes.get(progress.nodes) {
        let mut scan = redis::cmd("SCAN");
        let cursor = progress.cursor.as_deref().unwrap_or(b"0");
        scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(PIECE);
        let found = runtime.deadline(runtime.now().after(STEP), node.one(&scan)).await;
        let (next, found) = read_scan(found.unwrap_or_else(overdue)?)?;
        let ours = |name: &Vec<u8>| shared.keyspace.parse(name).is_some_and(|key| scope.covers(key.prefix()));
        let names: Vec<_> = found.into_iter().filter(|name| ours(name) && !spare(name)).collect();
        let gone = runtime.deadline(runtime.now().after(STEP), delete(names, stamp, servers)).await;
        let gone = gone.unwrap_or_else(|| overdue().map(|_: Value| 0))?;
        Counts::add(&shared.counts.cleared, gone);
        if next == b"0" {
            (progress.nodes, progress.cursor) = (progress.nodes + 1, None);
        } else {
            progress.cursor = Some(next);
            runtime.sleep(PAUSE).await;
        }
    }
    Ok(())
}

async fn delete(names: Vec<Vec<u8>>, stamp: Option<Stamp>, servers: &Servers) -> Result<u64> {
    if names.is_empty() {
        return Ok(0);
    }
    let answers = match stamp {
        None => {
            let unlink = |name: &Vec<u8>| {
                let mut command = redis::cmd("UNLINK");
                command.arg(name);
                Keyed { slot: servers.slot(name), command }
            };
            servers.send(names.iter().map(unlink).collect()).await
        }
        Some(stamp) => {
            let halves = [stamp.time & 0xFFFF_FFFF, stamp.time >> 32].map(|half| half.to_string());
            let call = |names: &[Vec<u8>]| {
                let slot = servers.slot(&names[0]);
                let arguments = halves.iter().map(String::as_bytes);
                Keyed { slot, command: SWEEP_UP_TO.call(names.iter().map(Vec::as_slice), arguments) }
            };
            let piece = if servers.has_slots() { 1 } else { PIECE };
            servers.run(&SWEEP_UP_TO, || names.chunks(piece).map(call).collect()).await
        }
    };
    let mut gone = 0;
    for answer in answers {
        match answer? {
            Value::Int(count) => gone += u64::try_from(count).unwrap_or(0),
            Value::ServerError(error) => return Err(failure::refusal(&error)),
            _ => return Err(failure::unexpected("a deletion")),
        }
    }
    Ok(gone)
}

fn read_scan(value: Value) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
    let unexpected = || failure::unexpected("SCAN");
    let items = match value {
        Value::Array(items) => items,
        Value::ServerError(error) => return Err(failure::refusal(&error)),
        _ => return Err(unexpected()),
    };
    let Ok([Value::BulkString(cursor), Value::Array(names)]) = <[Value; 2]>::try_from(items) else {
        return Err(unexpected());
    };
    let name = |name| match name {
        Value::BulkString(name) => Ok(name),
        _ => Err(unexpected()),
    };
    Ok((cursor, names.into_iter().map(name).collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(id: usize) -> Scope {
        Scope::Prefix(id.to_string().into())
    }

    #[test]
    fn what_waits_is_deleted_in_its_order_each_scope_once_up_to_its_newest_clear() {
        let mut work = Cleared::default();
        for (id, time) in [(1, 10), (2, 20), (1, 30), (2, 15)] {
            work.add(&region(id), Stamp { time, node: 1 });
        }
        let waiting: Vec<_> = work.0.iter().map(|(scope, stamp)| (scope.clone(), stamp.time)).collect();
        assert_eq!(waiting, [(region(1), 30), (region(2), 20)]);
    }

    #[test]
    fn no_more_waits_than_regions_on_record() {
        let mut work = Cleared::default();
        for id in 0..MAX_REGIONS + 10 {
            work.add(&region(id), Stamp { time: 1, node: 1 });
        }
        assert_eq!(work.0.len(), MAX_REGIONS);
        assert_eq!(work.0.front().map(|(scope, _)| scope.clone()), Some(region(10)), "the oldest went");
    }
}
