//! The store behind [`RedisBackend`](super::RedisBackend): its parts and what it is told. Reading, writing and clearing
//! have files of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::clears::Clears;
use super::deletions::Deletions;
use super::driver::RedisDriver;
use super::failure;
use super::servers::Servers;
use super::shared::Shared;
use super::state::RedisStats;
use super::wipes::Wipes;
use crate::backend::{BackendResult, OpenContext, Scope};
use crate::codec::{Compressor, Format};
use crate::error::Result;
use crate::value::{BackendLabel, Stamp};

pub(super) struct Store {
    pub(super) shared: Arc<Shared>,
    pub(super) servers: Arc<Servers>,
    /// Asked for reads instead, while it answers.
    pub(super) replica: Option<Arc<Servers>>,
    /// In ns of the runtime's clock.
    pub(super) replica_rests_until: AtomicU64,
    pub(super) clears: Clears,
    deletions: Deletions,
    /// What clears are where there are no stamps.
    pub(super) wipes: Arc<Wipes>,
    pub(super) options: StoreOptions,
}

pub(super) struct StoreOptions {
    pub(super) driver: RedisDriver,
    pub(super) label: BackendLabel,
    pub(super) format: Box<dyn Format>,
    pub(super) compressor: Box<dyn Compressor>,
    /// Whether only the values' own bytes are stored.
    pub(super) plain: bool,
    /// Whether stamps are compared before anything is changed.
    pub(super) compare: bool,
    pub(super) tombstones: Duration,
    /// Whether opening waits for a connection.
    pub(super) eager: bool,
}

impl Store {
    pub(super) fn new(
        shared: Arc<Shared>,
        servers: Servers,
        replica: Option<Servers>,
        options: StoreOptions,
    ) -> Self {
        let clears = Clears::new(&shared, &servers);
        Self {
            shared,
            servers: Arc::new(servers),
            replica: replica.map(Arc::new),
            replica_rests_until: AtomicU64::new(0),
            clears,
            deletions: Deletions::default(),
            wipes: Arc::default(),
            options,
        }
    }

    pub(super) fn stats(&self) -> RedisStats {
        let (state, nodes) = self.servers.state();
        self.shared.counts.stats(state, nodes)
    }

    pub(super) async fn open(&self, context: &OpenContext) -> Result<()> {
        self.options.driver.suits(&context.runtime)?;
        self.shared.open_on(&context.runtime);
        // By another clock, perhaps.
        self.replica_rests_until.store(0, Ordering::Relaxed);
        self.deletions.resume(&self.shared, &self.servers);
        self.wipes.resume(&self.shared, &self.servers);
        if self.options.eager { self.servers.connect_now().await } else { Ok(()) }
    }

    pub(super) async fn clear(&self, scope: &Scope, stamp: Stamp) -> BackendResult<()> {
        if self.options.plain {
            return self.wipes.wipe(scope, stamp, &self.shared, &self.servers).await;
        }
        let recorded = self.clears.record(scope, stamp, &self.servers).await;
        // Without room for the mark, what it would hide is deleted first: then there is room when it is asked for again.
        let full = recorded.as_ref().is_err_and(failure::is_out_of_memory);
        if let Some(stamp) = recorded.as_ref().ok().copied().or(full.then_some(stamp)) {
            self.deletions.add(scope, stamp, &self.shared, &self.servers);
        }
        recorded.map(drop)
    }
}
