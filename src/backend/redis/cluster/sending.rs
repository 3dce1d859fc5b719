//! How commands reach the nodes of a cluster: split by owner, redirected, and not held up by a node that is silent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{Cmd, ServerError, Value};

use super::super::failure;
use super::super::node::{Node, pipeline};
use super::super::servers::Keyed;
#[cfg(feature = "backplane")]
use super::super::state::ConnectionState;
#[cfg(feature = "backplane")]
use super::ANSWER;
use super::Cluster;
use super::map::Map;
use crate::error::{Error, ErrorKind, Result};

/// How often a command follows a redirection or is sent again.
const ATTEMPTS: usize = 5;

/// Before a command is sent again that the cluster was not ready for.
const NOT_READY: Duration = Duration::from_millis(10);

/// How long a node that answers late is waited for once all others have answered, at least.
const GRACE: Duration = Duration::from_millis(10);

/// How long it is waited for where no other is asked.
const ALONE: Duration = Duration::from_millis(30);

/// Commands and where their answers belong.
type Placed = Vec<(usize, Keyed)>;

/// What an answer says about the way.
enum Way {
    Moved(u16, String),
    Ask(String),
    NotReady,
    /// Nobody has the slot, as the node sees it.
    NoOwner,
}

/// What one node is sent of a batch.
struct Part {
    node: Arc<Node>,
    places: Vec<(usize, u16)>,
    commands: redis::Pipeline,
}

impl Cluster {
    /// Sends commands to the nodes that have their slots. Answers in their order.
    pub(in super::super) async fn send(&self, commands: Vec<Keyed>) -> Vec<Result<Value>> {
        let mut answers: Vec<Result<Value>> = Vec::new();
        let lost =
            || Err(Error::new(ErrorKind::Unavailable, "no node of the Redis cluster has the key's slot"));
        answers.resize_with(commands.len(), lost);
        let mut pending: Placed = commands.into_iter().enumerate().collect();
        for attempt in 0..ATTEMPTS {
            let map = match self.map().await {
                Ok(map) => Arc::clone(&map),
                Err(error) => {
                    for (place, _) in pending {
                        answers[place] = Err(error.clone());
                    }
                    return answers;
                }
            };
            if pending.iter().any(|(_, keyed)| map.owner(keyed.slot).is_none()) {
                // Nobody had these slots when the map was read; no node will be asked, so none can tell of a new owner.
                self.refresh_later();
            }
            let mut again = Vec::new();
            let parts = by_owner(pending, &map).into_iter().map(|(node, group)| {
                let (places, commands): (Vec<_>, Vec<_>) =
                    group.into_iter().map(|(place, keyed)| ((place, keyed.slot), keyed.command)).unzip();
                Part { node, places, commands: pipeline(commands) }
            });
            let parts: Vec<_> = parts.collect();
            let answered = self.patiently(&parts).await;
            for (Part { places, commands, .. }, answered) in parts.into_iter().zip(answered) {
                match answered {
                    Ok(answered) => {
                        let sent = places.into_iter().zip(commands.cmd_iter());
                        for (((place, slot), command), answer) in sent.zip(answered) {
                            if let Some(way) = way(&answer) {
                                again.push((place, slot, command.clone(), way));
                            }
                            answers[place] = Ok(answer);
                        }
                    }
                    Err(error) => {
                        // Perhaps another has taken over.
                        self.refresh_later();
                        for (place, _) in places {
                            answers[place] = Err(error.clone());
                        }
                    }
                }
            }
            let is_down = |(_, _, _, way): &(_, _, _, Way)| matches!(way, Way::NoOwner);
            if again.is_empty() || attempt + 1 == ATTEMPTS || (attempt > 0 && again.iter().all(is_down)) {
                break;
            }
            pending = self.follow(again, &mut answers).await;
            if pending.is_empty() {
                break;
            }
        }
        answers
    }

    /// Sends the parts of a batch, and waits for all answers but those of nodes that have been silent for a while: these
    /// get little longer than the others took, so that what the others say comes in time.
    async fn patiently(&self, parts: &[Part]) -> Vec<Result<Vec<Value>>> {
        let silent =
            || Err(Error::new(ErrorKind::Unavailable, "a node of the Redis cluster does not answer"));
        let mut answers: Vec<_> = parts.iter().map(|_| silent()).collect();
        let Ok(runtime) = self.0.shared.runtime() else { return answers };
        let slow: Vec<_> = parts.iter().map(|part| part.node.is_slow()).collect();
        let mut fast = slow.iter().filter(|slow| !**slow).count();
        let began = runtime.now();
        let mut until = (fast == 0).then(|| began.after(ALONE));
        let mut sent = FuturesUnordered::new();
        for (index, part) in parts.iter().enumerate() {
            sent.push(async move { (index, part.node.piped(&part.commands).await) });
        }
        loop {
            let next = match until {
                Some(until) => runtime.deadline(until, sent.next()).await.flatten(),
                None => sent.next().await,
            };
            let Some((index, answer)) = next else { return answers };
            answers[index] = answer;
            if !slow[index] {
                fast -= 1;
                if fast == 0 {
                    let now = runtime.now();
                    until = Some(now.after(now.since(began).max(GRACE)));
                }
            }
        }
    }

    /// Sends a command that any node can take: to the master of its slot while that one answers, so that commands keep
    /// their order, else to another, connected ones first.
    #[cfg(feature = "backplane")]
    pub(in super::super) async fn send_to_any(&self, keyed: &Keyed) -> Result<Value> {
        let runtime = self.0.shared.runtime()?;
        let map = Arc::clone(&*self.map().await?);
        let mut nodes: Vec<_> = map.masters.iter().map(|(_, node)| node).collect();
        let owner = map.owner(keyed.slot);
        nodes.sort_by_key(|node| {
            let is_owner = owner.is_some_and(|owner| Arc::ptr_eq(owner, node));
            match node.state() {
                ConnectionState::Connected => (0, !is_owner),
                ConnectionState::Idle | ConnectionState::Connecting => (1, !is_owner),
                ConnectionState::Disconnected => (2, !is_owner),
            }
        });
        let mut failed = failure::unexpected("the map of the cluster");
        for node in nodes {
            let deadline = runtime.now().after(ANSWER);
            failed = match runtime.deadline(deadline, node.one(&keyed.command)).await {
                Some(Ok(Value::ServerError(error))) => failure::refusal(&error),
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(error)) => error,
                None => Error::new(ErrorKind::Unavailable, "a node of the Redis cluster does not answer"),
            };
            self.refresh_later();
        }
        Err(failed)
    }

    /// Follows redirections. Returns what is to be sent by the map again.
    async fn follow(&self, redirected: Vec<(usize, u16, Cmd, Way)>, answers: &mut [Result<Value>]) -> Placed {
        let mut pending = Vec::new();
        let mut asks: HashMap<String, Vec<(usize, u16, Cmd)>> = HashMap::new();
        let mut wait = false;
        for (place, slot, command, way) in redirected {
            match way {
                Way::Moved(moved, address) => {
                    self.0.moved(moved, &address);
                    pending.push((place, Keyed { slot, command }));
                    self.refresh_later();
                }
                Way::Ask(address) => asks.entry(address).or_default().push((place, slot, command)),
                Way::NotReady | Way::NoOwner => {
                    wait = true;
                    self.refresh_later();
                    pending.push((place, Keyed { slot, command }));
                }
            }
        }
        for (address, group) in asks {
            let node = self.0.node(&address);
            let mut commands = Vec::with_capacity(group.len() * 2);
            for (_, _, command) in &group {
                commands.push(redis::cmd("ASKING"));
                commands.push(command.clone());
            }
            let part = Part { node, places: Vec::new(), commands: pipeline(commands) };
            let answered = self.patiently(std::slice::from_ref(&part)).await.pop();
            match answered.unwrap_or_else(|| Err(failure::unexpected("ASKING"))) {
                Ok(answered) => {
                    for ((place, slot, command), answer) in
                        group.into_iter().zip(answered.into_iter().skip(1).step_by(2))
                    {
                        if way(&answer).is_some() {
                            wait = true;
                            pending.push((place, Keyed { slot, command }));
                        }
                        answers[place] = Ok(answer);
                    }
                }
                Err(error) => {
                    for (place, ..) in group {
                        answers[place] = Err(error.clone());
                    }
                }
            }
        }
        if wait && let Ok(runtime) = self.0.shared.runtime() {
            runtime.sleep(NOT_READY).await;
        }
        pending
    }
}

fn by_owner(commands: Placed, map: &Map) -> Vec<(Arc<Node>, Placed)> {
    let mut groups: Vec<(Arc<Node>, Placed)> = Vec::new();
    for (place, keyed) in commands {
        let Some(owner) = map.owner(keyed.slot) else { continue };
        match groups.iter_mut().find(|(node, _)| Arc::ptr_eq(node, owner)) {
            Some((_, group)) => group.push((place, keyed)),
            None => groups.push((Arc::clone(owner), vec![(place, keyed)])),
        }
    }
    groups
}

fn way(answer: &Value) -> Option<Way> {
    let Value::ServerError(error) = answer else { return None };
    match error.code() {
        "MOVED" => {
            Some(redirection(error).map_or(Way::NotReady, |(slot, address)| Way::Moved(slot, address)))
        }
        "ASK" => Some(redirection(error).map_or(Way::NotReady, |(_, address)| Way::Ask(address))),
        "TRYAGAIN" => Some(Way::NotReady),
        "CLUSTERDOWN" => Some(Way::NoOwner),
        _ => None,
    }
}

fn redirection(error: &ServerError) -> Option<(u16, String)> {
    let (slot, address) = error.details()?.split_once(' ')?;
    // Without a host (a node that does not know its own name) the map has to say it.
    (!address.starts_with(':')).then_some(())?;
    Some((slot.parse().ok()?, address.to_owned()))
}
