//! A cluster: which node has which slot, and how commands find their way when that changes.
//!
//! The map comes from any node and is read again when a node says that it is wrong or cannot be reached. A command that
//! is redirected follows at once; a batch is split by node, and its parts travel at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{Cmd, ConnectionAddr, ConnectionInfo, ServerError, Value};

use super::failure;
use super::node::{Node, pipeline};
use super::servers::Keyed;
use super::shared::Shared;
use super::slots::SLOTS;
use super::state::ConnectionState;
use super::target::Target;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Instant;

/// How often a command follows a redirection or is sent again.
const ATTEMPTS: usize = 5;

/// Before a command is sent again that the cluster was not ready for.
const NOT_READY: Duration = Duration::from_millis(10);

/// The shortest time between two looks at the map.
const REFRESH_EVERY: Duration = Duration::from_millis(200);

/// How long a node that answers late is waited for once all others have answered, at least.
const GRACE: Duration = Duration::from_millis(10);

/// How long it is waited for where no other is asked.
const ALONE: Duration = Duration::from_millis(30);

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

/// Who has which slot.
#[derive(Clone, Default)]
struct Map {
    masters: Vec<(String, Arc<Node>)>,
    /// Indices of masters; past the last: nobody's.
    slots: Vec<u16>,
}

impl Map {
    fn owner(&self, slot: u16) -> Option<&Arc<Node>> {
        let index = *self.slots.get(usize::from(slot))?;
        self.masters.get(usize::from(index)).map(|(_, node)| node)
    }
}

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

    /// Sends commands to the nodes that have their slots. Answers in their order.
    pub(super) async fn send(&self, commands: Vec<Keyed>) -> Vec<Result<Value>> {
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
    pub(super) async fn send_to_any(&self, keyed: &Keyed) -> Result<Value> {
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

impl Inner {
    /// Asks the nodes that are known, then the seeds, for the map.
    async fn refresh(&self) -> Result<()> {
        let runtime = self.shared.runtime()?;
        {
            let (opening, mut refreshed) = (self.shared.openings(), self.refreshed());
            let running = refreshed.running && refreshed.opening == opening;
            *refreshed = Refreshed { opening, at: runtime.now(), running };
        }
        let mut asked: Vec<(String, Arc<Node>)> = self.map.load().masters.clone();
        // Those that answer first; one that hangs costs its connection's silence.
        asked.sort_by_key(|(_, node)| node.state() != ConnectionState::Connected);
        asked.extend(self.seeds.iter().map(|seed| {
            let address = seed.addr().to_string();
            let node = self.node(&address);
            (address, node)
        }));
        let about = |what: &str| {
            let mut command = redis::cmd("CLUSTER");
            command.arg(what);
            command
        };
        let ask = pipeline(vec![about("INFO"), about("SLOTS")]);
        let (mut failed, mut doubtful) = (None, None);
        for (address, node) in asked {
            let connected = node.state() == ConnectionState::Connected;
            let limit = self.shared.connector.timeout;
            let limit = if connected { limit.min(ANSWER) } else { limit };
            let answers = runtime.deadline(runtime.now().after(limit), node.piped(&ask)).await;
            let answers = answers.unwrap_or_else(|| {
                Err(Error::new(ErrorKind::Unavailable, "a node of the cluster does not answer"))
            });
            match answers.map(<[Value; 2]>::try_from) {
                Ok(Ok([_, Value::ServerError(error)])) => failed = Some(failure::refusal(&error)),
                Ok(Ok([info, slots])) => match self.read_map(slots, &address) {
                    // One that is cut off from the others may have been replaced.
                    Some(map) if is_failing(&info) => doubtful = doubtful.or(Some(map)),
                    Some(map) => {
                        self.take(map);
                        return Ok(());
                    }
                    None => failed = Some(failure::unexpected("CLUSTER SLOTS")),
                },
                Ok(Err(_)) => failed = Some(failure::unexpected("CLUSTER SLOTS")),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(map) = doubtful {
            self.take(map);
            return Ok(());
        }
        Err(failed.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, "no node of the cluster is known")))
    }

    fn take(&self, map: Map) {
        self.map.store(Arc::new(map));
        self.forget_others();
    }

    fn refreshed(&self) -> MutexGuard<'_, Refreshed> {
        self.refreshed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the nodes that are neither in the map nor seeds; their connections end with their last command.
    fn forget_others(&self) {
        let seeds: Vec<_> = self.seeds.iter().map(|seed| seed.addr().to_string()).collect();
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let map = self.map.load();
        let in_map = |address: &String| map.masters.iter().any(|(master, _)| master == address);
        nodes.retain(|address, _| in_map(address) || seeds.contains(address));
    }

    fn read_map(&self, answer: Value, asked: &str) -> Option<Map> {
        let Value::Array(ranges) = answer else { return None };
        let mut map = Map { masters: Vec::new(), slots: vec![u16::MAX; usize::from(SLOTS)] };
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &range[..] else {
                return None;
            };
            let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
            let [host, Value::Int(port), ..] = &master[..] else { return None };
            let host = match host {
                Value::BulkString(host) => String::from_utf8(host.clone()).ok()?,
                Value::Nil => String::new(),
                _ => return None,
            };
            let address = match &*host {
                // The node does not know its own name: it is where it was asked.
                "" => format!("{}:{port}", asked.rsplit_once(':')?.0),
                "?" => continue,
                host => format!("{host}:{port}"),
            };
            let index = map.index(&address, || self.node(&address));
            map.slots.get_mut(first..=last)?.fill(index);
        }
        (!map.masters.is_empty()).then_some(map)
    }

    /// A node says that a slot is another's now.
    fn moved(&self, slot: u16, address: &str) {
        let node = self.node(address);
        self.map.rcu(|map| {
            let mut map = Map::clone(map);
            let index = map.index(address, || Arc::clone(&node));
            if let Some(owner) = map.slots.get_mut(usize::from(slot)) {
                *owner = index;
            }
            map
        });
    }

    /// The node at an address: connected as the first seed is.
    fn node(&self, address: &str) -> Arc<Node> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.get(address) {
            return Arc::clone(node);
        }
        let node = Node::new(&self.shared, Target::Address(self.info(address)));
        nodes.insert(address.to_owned(), Arc::clone(&node));
        node
    }

    fn info(&self, address: &str) -> ConnectionInfo {
        let seed = &self.seeds[0];
        let Some((host, port)) = address.rsplit_once(':') else { return seed.clone() };
        let (host, port) = (host.trim_matches(['[', ']']).to_owned(), port.parse().unwrap_or(6379));
        let addr = match seed.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        seed.clone().set_addr(addr)
    }
}

impl Map {
    /// The master's index; past 65,534 of them, the last one's.
    fn index(&mut self, address: &str, node: impl FnOnce() -> Arc<Node>) -> u16 {
        let known = self.masters.iter().position(|(known, _)| known == address);
        let index = known.unwrap_or_else(|| {
            self.masters.push((address.to_owned(), node()));
            self.masters.len() - 1
        });
        u16::try_from(index).unwrap_or(u16::MAX - 1)
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

/// Whether a node says that the cluster is down, as it sees it.
fn is_failing(info: &Value) -> bool {
    let text = match info {
        Value::BulkString(text) => String::from_utf8_lossy(text),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => text.into(),
        _ => return false,
    };
    text.contains("cluster_state:fail")
}

fn redirection(error: &ServerError) -> Option<(u16, String)> {
    let (slot, address) = error.details()?.split_once(' ')?;
    // Without a host (a node that does not know its own name) the map has to say it.
    (!address.starts_with(':')).then_some(())?;
    Some((slot.parse().ok()?, address.to_owned()))
}
