//! The route: which tiers there are and which of them serve, as callers see it.

use std::sync::Arc;

use crate::runtime::Address;
use crate::tier::TierCore;

/// An immutable snapshot, published by the supervisor and followed by callers without asking anyone.
pub(crate) struct Route {
    pub(crate) tiers: Box<[RouteTier]>,
    /// Of these, the ones that are written.
    pub(crate) written: Box<[RouteTier]>,
}

impl Route {
    pub(crate) fn new(tiers: Box<[RouteTier]>) -> Self {
        let written = tiers.iter().filter(|tier| !tier.core.options.read_only).cloned().collect();
        Self { tiers, written }
    }

    /// The tiers that are only read.
    pub(crate) fn read_only(&self) -> impl Iterator<Item = &RouteTier> {
        self.tiers.iter().filter(|tier| tier.core.options.read_only)
    }
}

/// One tier of a route.
#[derive(Clone)]
pub(crate) struct RouteTier {
    pub(crate) core: Arc<TierCore>,
    pub(crate) address: Address,
    /// Whether reads should try it: not while its actor is down.
    pub(crate) serving: bool,
}
