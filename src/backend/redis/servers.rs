//! Where a command goes: the one server, or the node of a cluster that has the key.

use std::sync::Arc;

#[cfg(feature = "backplane")]
use redis::aio::PubSubStream;
use redis::{Cmd, Value};

#[cfg(feature = "cluster")]
use super::cluster::Cluster;
#[cfg(feature = "backplane")]
use super::connect::Connector;
use super::failure;
use super::node::Node;
use super::script::Lua;
use super::shared::Shared;
use super::state::ConnectionState;
use super::target::Target;
use crate::error::Result;
#[cfg(feature = "backplane")]
use crate::runtime::RuntimeHandle;

pub(super) enum Servers {
    One(Arc<Node>),
    #[cfg(feature = "cluster")]
    Cluster(Cluster),
}

/// A command and the slot of its keys; a single server has no slots and does not look.
pub(super) struct Keyed {
    #[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "a single server has no slots"))]
    pub(super) slot: u16,
    pub(super) command: Cmd,
}

impl Servers {
    pub(super) fn one(shared: &Arc<Shared>, target: Target) -> Self {
        Self::One(Node::new(shared, target))
    }

    #[cfg(feature = "cluster")]
    pub(super) fn cluster(shared: &Arc<Shared>, seeds: Vec<redis::ConnectionInfo>) -> Self {
        Self::Cluster(Cluster::new(shared, seeds))
    }

    pub(super) fn has_slots(&self) -> bool {
        match self {
            Self::One(_) => false,
            #[cfg(feature = "cluster")]
            Self::Cluster(_) => true,
        }
    }

    /// The slot of a name, where there are slots.
    pub(super) fn slot(&self, name: &[u8]) -> u16 {
        let _ = name;
        match self {
            Self::One(_) => 0,
            #[cfg(feature = "cluster")]
            Self::Cluster(_) => super::slots::slot(name),
        }
    }

    /// Sends commands, in as few pieces as there are servers concerned. Answers in their order, the server's errors
    /// among them.
    pub(super) async fn send(&self, commands: Vec<Keyed>) -> Vec<Result<Value>> {
        match self {
            Self::One(node) => {
                let count = commands.len();
                match node.many(commands.into_iter().map(|keyed| keyed.command).collect()).await {
                    Ok(answers) => answers.into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(error); count],
                }
            }
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.send(commands).await,
        }
    }

    /// Sends calls of a script; those that a server does not know by its hash once more, in full.
    pub(super) async fn run(&self, script: &Lua, calls: impl Fn() -> Vec<Keyed>) -> Vec<Result<Value>> {
        let mut answers = self.send(calls()).await;
        let is_unknown = |answer: &Result<Value>| matches!(answer, Ok(Value::ServerError(error)) if failure::is_unknown_script(error));
        if answers.iter().any(is_unknown) {
            let (places, again): (Vec<_>, Vec<_>) = calls()
                .into_iter()
                .enumerate()
                .filter(|(place, _)| answers.get(*place).is_some_and(is_unknown))
                .map(|(place, call)| (place, Keyed { command: script.in_full(&call.command), ..call }))
                .unzip();
            for (place, answer) in places.into_iter().zip(self.send(again).await) {
                answers[place] = answer;
            }
        }
        answers
    }

    /// Sends a command that has no keys, and that any server can take.
    #[cfg(feature = "backplane")]
    pub(super) async fn send_to_any(&self, keyed: Keyed) -> Result<Value> {
        match self {
            Self::One(node) => node.one(&keyed.command).await,
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.send_to_any(&keyed).await,
        }
    }

    /// A connection that hears a channel: to the server, or to whichever master of the cluster takes it first, beginning
    /// with a random one.
    #[cfg(feature = "backplane")]
    pub(super) async fn listen(
        &self,
        connector: &Connector,
        runtime: &RuntimeHandle,
        channel: &str,
    ) -> Result<PubSubStream> {
        let nodes = self.all().await?;
        let first = usize::try_from(runtime.random() % nodes.len().max(1) as u64).unwrap_or(0);
        let mut failed = failure::unexpected("the map of the cluster");
        for node in nodes.iter().cycle().skip(first).take(nodes.len()) {
            match node.listen(connector, runtime, channel).await {
                Ok(messages) => return Ok(messages),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Every server that has keys of its own.
    pub(super) async fn all(&self) -> Result<Vec<Arc<Node>>> {
        match self {
            Self::One(node) => Ok(vec![Arc::clone(node)]),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.masters().await,
        }
    }

    pub(super) async fn connect_now(&self) -> Result<()> {
        match self {
            Self::One(node) => node.connect_now().await,
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.connect_now().await,
        }
    }

    pub(super) fn state(&self) -> (ConnectionState, usize) {
        match self {
            Self::One(node) => (node.state(), 1),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.state(),
        }
    }
}
