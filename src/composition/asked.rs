//! The usual read of a tier behind calls: those above it are in process and do not have the key.
//!
//! What follows from such a read is done before it waits and after, in one go each: while it waits, hardly more than its
//! place in the tier's queue is kept. With a thousand readers under way, what they keep is what a read costs. Anything
//! unusual goes the long way, [`read_tiers`](Engine::read_tiers).

use std::sync::Arc;

use super::engine::Engine;
use super::policy::ReadPolicy;
use super::read::{Found, Held, Usable, restarted_read};
use crate::codec::ValueType;
use crate::error::Result;
use crate::key::CacheKey;
use crate::observe::{Began, trace};
use crate::order::Fence;
use crate::planted::{Plant, planted};
use crate::tier::{Counters, ReadAnswer, ReadOp};
use crate::value::{Entry, Payload};

/// A read that the tier with this index has been asked.
struct Asked {
    tier: usize,
    fence: Option<Fence>,
    began: Began,
    answer: ReadAnswer,
}

/// What an answer comes to at once.
enum Taken {
    Found(Option<Found>),
    /// To be decoded elsewhere.
    Large(Usable),
}

impl Engine {
    /// Whether the last tier is behind calls.
    pub(crate) fn asks_last(&self) -> bool {
        self.cores.last().is_some_and(|core| core.port.is_none())
    }

    /// What the tiers have of a key, for a caller who does not ask why they have nothing.
    pub(crate) async fn find(&self, key: &CacheKey, ty: &Arc<dyn ValueType>) -> Option<Found> {
        trace::read(key, async {
            match self.ask_at_once(key) {
                Some(asked) => self.await_asked(key, ty, asked).await,
                // Boxed, so that the usual read does not carry its state.
                None => Box::pin(self.read_tiers(key, ty)).await.found,
            }
        })
        .await
    }

    /// Asks the last tier if it is behind calls, and the others are ports without the key.
    fn ask_at_once(&self, key: &CacheKey) -> Option<Asked> {
        let route = self.route.load();
        let (last, above) = route.tiers.split_last()?;
        let usual = self.read_policy == ReadPolicy::Sequential
            && last.serving
            && last.core.port.is_none()
            // What answers at once is not waited for.
            && !last.core.immediate
            && last.core.is_open()
            && last.address.is_empty()
            && !planted(Plant::NoDeadline);
        if !usual {
            return None;
        }
        // Before anything is read: a mutation from here on voids the refill.
        let fence = self.order.fences.take(key.hash_u64());
        let probe = key.probe();
        for tier in above {
            // A port is asked after its gate.
            let port = tier.core.port.as_ref().filter(|_| tier.core.is_open())?;
            if port.get(&probe).is_some() {
                return None;
            }
        }
        let began = Began::now(&self.runtime);
        let deadline = self.runtime.now().after(last.core.options.read_deadline);
        let (read, answer) = ReadOp::new(key.clone(), deadline);
        if let Some(read) = last.core.read_at_once(read) {
            // Nobody has been asked.
            drop((answer, read));
            return None;
        }
        for tier in above {
            Counters::one(&tier.core.counters.port_reads);
            Counters::one(&tier.core.counters.misses);
        }
        Some(Asked { tier: above.len(), fence, began, answer })
    }

    async fn await_asked(&self, key: &CacheKey, ty: &Arc<dyn ValueType>, mut asked: Asked) -> Option<Found> {
        // In the tier's queue, where its deadline is watched.
        let answer = (&mut asked.answer).await.unwrap_or_else(|_| Err(restarted_read()));
        self.cores[asked.tier].meter.read(asked.began, &self.runtime);
        let result = match self.take_answer(key, ty, asked.tier, answer) {
            Ok(Taken::Found(found)) => Ok(found),
            Ok(Taken::Large(usable)) => Box::pin(self.decode_large(ty, asked.tier, usable)).await,
            Err(error) => Err(error),
        };
        self.conclude(key, ty, &asked, result)
    }

    /// Opens and decodes what the tier has answered, unless it is large.
    fn take_answer(
        &self,
        key: &CacheKey,
        ty: &Arc<dyn ValueType>,
        tier: usize,
        answer: Result<Option<Entry>>,
    ) -> Result<Taken> {
        let counters = &self.cores[tier].counters;
        let Some(entry) = answer? else {
            Counters::one(&counters.misses);
            return Ok(Taken::Found(None));
        };
        if let Payload::Bytes(raw) = &entry.payload {
            Counters::add(&counters.bytes_read, raw.len() as u64);
        }
        let route = self.route.load();
        let core = &route.tiers[tier].core;
        let is_frame = matches!(entry.payload, Payload::Bytes(_));
        let taken = self.usable(&route.tiers[tier], key, entry).and_then(|usable| {
            let Some(usable) = usable else { return Ok(Taken::Found(None)) };
            if let Held::Frame(header, payload) = &usable.held {
                return match self.codecs.decode_if_small(header, payload, &**ty) {
                    Some(object) => self
                        .found(core, tier, object?, (usable.meta, usable.now), ty)
                        .map(Some)
                        .map(Taken::Found),
                    None => Ok(Taken::Large(usable)),
                };
            }
            let Held::Object(object) = &usable.held else { return Ok(Taken::Found(None)) };
            self.found(core, tier, Arc::clone(object), (usable.meta, usable.now), ty)
                .map(Some)
                .map(Taken::Found)
        });
        if is_frame && !matches!(taken, Ok(Taken::Large(_))) {
            core.note_decode(&taken);
        }
        taken
    }

    async fn decode_large(
        &self,
        ty: &Arc<dyn ValueType>,
        tier: usize,
        usable: Usable,
    ) -> Result<Option<Found>> {
        let route = self.route.load_full();
        let decoded = self.decode_usable(&route.tiers[tier], tier, ty, usable).await;
        route.tiers[tier].core.note_decode(&decoded);
        decoded.map(Some)
    }

    fn conclude(
        &self,
        key: &CacheKey,
        ty: &Arc<dyn ValueType>,
        asked: &Asked,
        result: Result<Option<Found>>,
    ) -> Option<Found> {
        let found = match result {
            Ok(found) => found?,
            Err(error) => {
                self.cores[asked.tier].counters.degraded(error.kind());
                return None;
            }
        };
        let late = planted(Plant::FenceLate).then(|| self.order.fences.take(key.hash_u64()));
        if let Some(fence) = late.unwrap_or(asked.fence)
            && asked.tier > 0
        {
            self.refill(&self.route.load(), key, ty, &found, fence, (0..asked.tier).collect());
        }
        Some(found)
    }
}
