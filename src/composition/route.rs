//! The route: which tiers there are and which of them serve, as callers see it.

use std::sync::Arc;

use crate::runtime::Address;
use crate::tier::TierCore;

/// An immutable snapshot, published by the supervisor and followed by callers without asking anyone.
pub(crate) struct Route {
    pub(crate) tiers: Box<[RouteTier]>,
}

/// One tier of a route.
#[derive(Clone)]
pub(crate) struct RouteTier {
    pub(crate) core: Arc<TierCore>,
    pub(crate) address: Address,
    /// Whether reads should try it: not while its actor is down.
    pub(crate) serving: bool,
}
