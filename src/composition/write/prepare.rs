//! What each tier is to store of a value: encoded and weighed before it is numbered, sealed with its number after.

use std::sync::Arc;

use super::super::encode::Coding;
use super::super::engine::Engine;
use super::super::policy::WritePolicy;
use super::super::refill::{is_oversized, is_unweighed};
use super::super::route::{Route, RouteTier};
use crate::codec::{Encoded, ValueType};
use crate::error::{Error, ErrorKind, Result};
use crate::order::Write;
use crate::tier::{Change, Counters};
use crate::value::{Entry, Meta, Object, Payload};

/// A value made ready for each tier, before it is numbered.
pub(super) enum Prepared {
    Object(u32),
    Encoded(Encoded),
    /// Shares the frame of the tier with this index, which has the same codec and life.
    Shared(usize),
    /// Could not be made ready now, which is this tier's failure: it drops the key, the others get the value.
    Failed(Error),
}

impl Engine {
    /// Encodes and weighs a value as the tiers want it. Before it is numbered: this may take long, and fail.
    pub(super) async fn prepare(
        &self,
        route: &Route,
        object: &Object,
        ty: &Arc<dyn ValueType>,
    ) -> Result<Vec<Prepared>> {
        let tiers: Vec<&RouteTier> = route.written.iter().collect();
        let codings = self.encode_for(&tiers, object, ty).await;
        let mut prepared = Vec::with_capacity(tiers.len());
        for (tier, coding) in tiers.into_iter().zip(codings) {
            prepared.push(match coding {
                None if is_unweighed(tier) => Prepared::Object(0),
                None => self.weigh(object, ty).await.map_or_else(Prepared::Failed, Prepared::Object),
                Some(Coding::Own(encoded)) => Prepared::Encoded(encoded),
                Some(Coding::SameAs(twin)) => Prepared::Shared(twin),
                // The value's own doing: nothing is changed.
                Some(Coding::Failed(error))
                    if matches!(error.kind(), ErrorKind::Encode | ErrorKind::TooLarge) =>
                {
                    return Err(error.at_tier(&tier.core.label));
                }
                Some(Coding::Failed(error)) => Prepared::Failed(error),
            });
        }
        Ok(prepared)
    }

    /// What each tier is to do, with the number in it.
    pub(super) fn seal(
        &self,
        route: &Route,
        object: &Object,
        life: Meta,
        write: &Write<'_>,
        prepared: Vec<Prepared>,
    ) -> Vec<(Change, Option<Error>)> {
        let now = self.runtime.wall();
        let last = route.written.len().saturating_sub(1);
        let mut entries: Vec<Result<Entry>> = Vec::with_capacity(prepared.len());
        for (tier, prepared) in route.written.iter().zip(prepared) {
            let meta = Meta { stamp: write.stamp, ..life }.capped(tier.core.ttl_cap(), now);
            let payload = match prepared {
                Prepared::Object(weight) => Ok(Payload::Object(Arc::clone(object), weight)),
                Prepared::Encoded(encoded) => Ok(Payload::Bytes(encoded.seal(write.key, &meta))),
                Prepared::Shared(twin) => entries[twin].clone().map(|entry| entry.payload),
                Prepared::Failed(error) => Err(error),
            };
            entries.push(payload.map(|payload| Entry::new(payload, meta)));
        }
        let around = self.write_policy == WritePolicy::WriteAround;
        let change = |(index, entry): (usize, Result<Entry>)| {
            let tier = &route.written[index];
            match entry {
                _ if around && index < last => (Change::Remove, None),
                Err(error) => (Change::Remove, Some(error)),
                Ok(entry) if is_oversized(tier, &entry.payload) => {
                    Counters::one(&tier.core.counters.oversized);
                    (Change::Remove, None)
                }
                Ok(entry) => (Change::Set(entry), None),
            }
        };
        entries.into_iter().enumerate().map(change).collect()
    }
}
