//! The map of a cluster: read from whichever node answers, and corrected by redirections.

use std::sync::{Arc, MutexGuard, PoisonError};

use redis::{ConnectionAddr, ConnectionInfo, Value};

use super::super::failure;
use super::super::node::{Node, pipeline};
use super::super::slots::SLOTS;
use super::super::state::ConnectionState;
use super::super::target::Target;
use super::{ANSWER, Inner, Refreshed};
use crate::error::{Error, ErrorKind, Result};

/// Who has which slot.
#[derive(Clone, Default)]
pub(super) struct Map {
    pub(super) masters: Vec<(String, Arc<Node>)>,
    /// Indices of masters; past the last: nobody's.
    slots: Vec<u16>,
}

impl Map {
    pub(super) fn owner(&self, slot: u16) -> Option<&Arc<Node>> {
        let index = *self.slots.get(usize::from(slot))?;
        self.masters.get(usize::from(index)).map(|(_, node)| node)
    }

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

impl Inner {
    /// Asks the nodes that are known, then the seeds, for the map.
    pub(super) async fn refresh(&self) -> Result<()> {
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

    pub(super) fn refreshed(&self) -> MutexGuard<'_, Refreshed> {
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
    pub(super) fn moved(&self, slot: u16, address: &str) {
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
    pub(super) fn node(&self, address: &str) -> Arc<Node> {
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

/// Whether a node says that the cluster is down, as it sees it.
fn is_failing(info: &Value) -> bool {
    let text = match info {
        Value::BulkString(text) => String::from_utf8_lossy(text),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => text.into(),
        _ => return false,
    };
    text.contains("cluster_state:fail")
}
