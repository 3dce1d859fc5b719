//! One encoding for all tiers that share it.

use std::sync::Arc;

use super::engine::Engine;
use super::route::RouteTier;
use crate::backend::Holds;
use crate::codec::{Encoded, ValueType};
use crate::error::Error;
use crate::value::Object;

/// What a byte tier is to store.
pub(super) enum Coding {
    /// A frame of its own, still to be sealed.
    Own(Encoded),
    /// The very frame of an earlier tier, by its index among those that were asked about.
    SameAs(usize),
    Failed(Error),
}

impl Engine {
    /// Encodes a value for `tiers`: once for all that agree in format and compressor. `None` for tiers of objects.
    /// Tiers that also agree in how long entries live share the frame; the others get a copy of the encoding.
    pub(super) async fn encode_for(
        &self,
        tiers: &[&RouteTier],
        object: &Object,
        ty: &Arc<dyn ValueType>,
    ) -> Vec<Option<Coding>> {
        let mut codings: Vec<Option<Coding>> = Vec::with_capacity(tiers.len());
        // By the index of the tier that was encoded for: what later tiers are to take.
        let mut copies: Vec<(usize, Vec<Encoded>)> = Vec::new();
        for (index, tier) in tiers.iter().enumerate() {
            if tier.core.holds != Holds::Bytes {
                codings.push(None);
                continue;
            }
            let frame = tiers[..index].iter().position(|other| same_frame(other, tier));
            let encoding = tiers[..index].iter().position(|other| same_encoding(other, tier));
            codings.push(Some(match (frame, encoding) {
                (Some(frame), _) => Coding::SameAs(frame),
                (None, Some(first)) => match &codings[first] {
                    Some(Coding::Failed(error)) => Coding::Failed(error.clone()),
                    _ => {
                        let made = copies.iter_mut().find(|(of, _)| *of == first);
                        match made.and_then(|(_, copies)| copies.pop()) {
                            Some(copy) => Coding::Own(copy),
                            None => self.encode_one(tier, object, ty, 0).await.0,
                        }
                    }
                },
                (None, None) => {
                    let wanted = frames_beside(&tiers[index..]);
                    let (coding, made) = self.encode_one(tier, object, ty, wanted).await;
                    copies.push((index, made));
                    coding
                }
            }));
        }
        codings
    }

    async fn encode_one(
        &self,
        tier: &RouteTier,
        object: &Object,
        ty: &Arc<dyn ValueType>,
        copies: usize,
    ) -> (Coding, Vec<Encoded>) {
        let (object, backend) = (Arc::clone(object), Arc::clone(&tier.core.backend));
        match self.codecs.encode_copies(object, Arc::clone(ty), backend, copies).await {
            Ok((encoded, copies)) => (Coding::Own(encoded), copies),
            Err(error) => (Coding::Failed(error), Vec::new()),
        }
    }
}

/// How many further frames the tiers after the first want of its encoding.
fn frames_beside(tiers: &[&RouteTier]) -> usize {
    let wants = |&index: &usize| {
        same_encoding(tiers[0], tiers[index])
            && !tiers[..index].iter().any(|earlier| same_frame(earlier, tiers[index]))
    };
    (1..tiers.len()).filter(wants).count()
}

/// Whether two byte tiers encode a value to the same bytes.
fn same_encoding(a: &RouteTier, b: &RouteTier) -> bool {
    let codec = |tier: &RouteTier| {
        let (format, compressor) = (tier.core.backend.value_format(), tier.core.backend.compressor());
        let packed = (compressor.id(), compressor.dictionary(), compressor.level(), compressor.min_size());
        (format.id(), format.name(), format.alignment(), packed)
    };
    a.core.holds == Holds::Bytes && b.core.holds == Holds::Bytes && codec(a) == codec(b)
}

/// Whether two byte tiers store the very same frame.
fn same_frame(a: &RouteTier, b: &RouteTier) -> bool {
    a.core.options.ttl_cap == b.core.options.ttl_cap && same_encoding(a, b)
}
