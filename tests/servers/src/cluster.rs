//! A Redis cluster: three masters with a replica each, whose slots can move while clients are at work.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use crate::await_until;
use crate::resp::Reply;
use crate::server::{RedisServer, RedisServerBuilder};

const MASTERS: usize = 3;
/// The slots of each master, at the start.
const SLOTS: [RangeInclusive<u16>; MASTERS] = [0..=5460, 5461..=10922, 10923..=16383];

/// Three masters and three replicas; killed when dropped.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    ids: Vec<String>,
}

/// A slot on its way from one master to another: keys that have moved are answered with `-ASK` by the old one.
#[derive(Debug, Clone, Copy)]
#[must_use = "a slot that stays between two masters needs `finish_migration`"]
pub struct Migration {
    slot: u16,
    from: usize,
    to: usize,
}

impl RedisCluster {
    /// Starts one; takes some seconds.
    ///
    /// # Errors
    /// As of [`RedisServerBuilder::start`], or if the nodes do not agree in three minutes.
    pub fn start() -> io::Result<Self> {
        Self::start_with(RedisServer::builder())
    }

    /// Starts one whose nodes are all configured so.
    ///
    /// # Errors
    /// As of [`start`](Self::start).
    pub fn start_with(builder: RedisServerBuilder) -> io::Result<Self> {
        let nodes: Vec<_> =
            (0..2 * MASTERS).map(|_| builder.clone().cluster_node().start()).collect::<io::Result<_>>()?;
        let ids = nodes
            .iter()
            .map(|node| Ok(node.command(&["CLUSTER", "MYID"])?.text()))
            .collect::<io::Result<_>>()?;
        let cluster = Self { nodes, ids };
        cluster.join()?;
        Ok(cluster)
    }

    fn join(&self) -> io::Result<()> {
        for (index, node) in self.nodes.iter().enumerate() {
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()])?;
            for other in &self.nodes[..index] {
                node.command(&["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string()])?;
            }
        }
        for (node, slots) in self.nodes.iter().zip(SLOTS) {
            let (first, last) = (slots.start().to_string(), slots.end().to_string());
            let mut client = node.client()?;
            client.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last])?.ok()?;
        }
        for (index, node) in self.nodes.iter().enumerate().skip(MASTERS) {
            // Fails until the node has heard of its master.
            let master = &self.ids[index - MASTERS];
            await_until("a replica", || node.command(&["CLUSTER", "REPLICATE", master]).map(Some))?;
        }
        self.settle()
    }

    /// Waits until every node sees every slot served, and every replica follows its master.
    ///
    /// # Errors
    /// If that takes more than three minutes.
    pub fn settle(&self) -> io::Result<()> {
        for node in &self.nodes {
            await_until("agreement in the cluster", || {
                let info = node.command(&["CLUSTER", "INFO"])?.text();
                let nodes = node.command(&["CLUSTER", "NODES"])?.text();
                let replicas = nodes.lines().filter(|line| line.contains("slave ")).count();
                let ready = info.contains("cluster_state:ok")
                    && info.contains("cluster_slots_ok:16384")
                    && nodes.lines().count() == self.nodes.len()
                    && !nodes.contains("handshake")
                    && replicas == MASTERS
                    && (node.info("role")? == "master" || node.info("master_link_status")? == "up");
                Ok(ready.then_some(()))
            })?;
        }
        Ok(())
    }

    /// Its nodes: the three that start as masters, then their replicas in the same order.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// `redis://127.0.0.1:port` of every node.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }

    /// The address of every node.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(RedisServer::addr).collect()
    }

    /// The slot of a key.
    ///
    /// # Errors
    /// If no node answers.
    pub fn slot(&self, key: &str) -> io::Result<u16> {
        let reply = self.any(&["CLUSTER", "KEYSLOT", key])?;
        let Reply::Integer(slot) = reply else { return Err(io::Error::other("not a slot")) };
        u16::try_from(slot).map_err(io::Error::other)
    }

    /// The node (as of [`nodes`](Self::nodes)) that serves a slot now.
    ///
    /// # Errors
    /// If no node answers or none serves it.
    pub fn owner(&self, slot: u16) -> io::Result<usize> {
        let text = self.any(&["CLUSTER", "NODES"])?.text();
        let serves = |line: &&str| {
            line.split(' ').skip(8).filter(|range| !range.starts_with('[')).any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (first, last) = (first.parse::<u16>(), last.parse::<u16>());
                matches!((first, last), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
            })
        };
        let line = text.lines().find(serves).ok_or_else(|| io::Error::other("no node serves the slot"))?;
        let id = line.split(' ').next().unwrap_or_default();
        self.ids.iter().position(|known| known == id).ok_or_else(|| io::Error::other("an unknown node"))
    }

    /// Moves slots, with their keys, to a master, one by one, while clients are at work.
    ///
    /// # Errors
    /// If a node answers with an error.
    pub fn migrate_slots(&self, slots: impl IntoIterator<Item = u16>, to: usize) -> io::Result<()> {
        slots.into_iter().try_for_each(|slot| {
            let migration = self.begin_migration(slot, to)?;
            self.finish_migration(migration)
        })
    }

    /// Begins to move a slot: from now on its old master answers `-ASK` for keys that it does not have.
    ///
    /// # Errors
    /// If a node answers with an error.
    pub fn begin_migration(&self, slot: u16, to: usize) -> io::Result<Migration> {
        let from = self.owner(slot)?;
        if from != to {
            let name = slot.to_string();
            self.nodes[to].command(&["CLUSTER", "SETSLOT", &name, "IMPORTING", &self.ids[from]])?;
            self.nodes[from].command(&["CLUSTER", "SETSLOT", &name, "MIGRATING", &self.ids[to]])?;
        }
        Ok(Migration { slot, from, to })
    }

    /// Moves the keys that the old master still has, `limit` at most; returns how many.
    ///
    /// # Errors
    /// If a node answers with an error.
    pub fn move_keys(&self, migration: Migration, limit: usize) -> io::Result<usize> {
        let Migration { slot, from, to } = migration;
        let mut client = self.nodes[from].client()?;
        let keys =
            client.command(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), &limit.to_string()])?.ok()?;
        let Reply::Array(keys) = keys else { return Err(io::Error::other("not keys")) };
        if keys.is_empty() {
            return Ok(0);
        }
        let (user, password) = RedisServer::harness();
        let port = self.nodes[to].port().to_string();
        let mut command: Vec<Vec<u8>> =
            ["MIGRATE", "127.0.0.1", &port, "", "0", "2000", "AUTH2", user, password, "KEYS"]
                .map(|part| part.as_bytes().to_vec())
                .into();
        command.extend(keys.iter().map(|key| match key {
            Reply::Bulk(key) => key.clone(),
            other => other.text().into_bytes(),
        }));
        client.command(&command)?.ok()?;
        Ok(keys.len())
    }

    /// Moves what is left and gives the slot to its new master: from now on the old one answers `-MOVED`.
    ///
    /// # Errors
    /// If a node answers with an error.
    pub fn finish_migration(&self, migration: Migration) -> io::Result<()> {
        let Migration { slot, from, to } = migration;
        if from == to {
            return Ok(());
        }
        while self.move_keys(migration, 100)? > 0 {}
        let name = slot.to_string();
        // The new owner first, and the old one next: the slot is never without one.
        self.nodes[to].command(&["CLUSTER", "SETSLOT", &name, "NODE", &self.ids[to]])?;
        self.nodes[from].command(&["CLUSTER", "SETSLOT", &name, "NODE", &self.ids[to]])?;
        for (index, node) in self.nodes.iter().enumerate() {
            if index != to && index != from && node.info("role")? == "master" {
                node.command(&["CLUSTER", "SETSLOT", &name, "NODE", &self.ids[to]])?;
            }
        }
        Ok(())
    }

    /// Lets a replica take over from its master, which agrees: no write is lost.
    ///
    /// # Errors
    /// If it does not in three minutes.
    pub fn fail_over(&self, replica: usize) -> io::Result<()> {
        let node = &self.nodes[replica];
        let mut polls = 0_u32;
        await_until("a failover", || {
            if node.info("role")? == "master" {
                return Ok(Some(()));
            }
            // What the masters have not agreed to in 5 s the servers give up: asked again then.
            polls += 1;
            if polls % 1_500 == 1 {
                node.command(&["CLUSTER", "FAILOVER"])?;
            }
            Ok(None)
        })
    }

    /// Makes a replica the master of its slots, whatever the present master says; the latter becomes its replica.
    ///
    /// # Errors
    /// If it does not become one in three minutes.
    pub fn promote(&self, replica: usize) -> io::Result<()> {
        let node = &self.nodes[replica];
        node.command(&["CLUSTER", "FAILOVER", "TAKEOVER"])?;
        await_until("a promotion", || Ok((node.info("role")? == "master").then_some(())))
    }

    fn any(&self, args: &[&str]) -> io::Result<Reply> {
        let mut last = io::Error::other("no nodes");
        for node in &self.nodes {
            match node.command(args) {
                Ok(reply) => return Ok(reply),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
