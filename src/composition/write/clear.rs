//! Clearing: a scope is hidden in every tier at once, and its entries deleted later.

use std::sync::Arc;

use futures_channel::oneshot;
use futures_util::future::join_all;

use super::super::engine::Engine;
use super::super::read::rejection;
use super::super::route::RouteTier;
use super::send::restarted;
use crate::backend::Scope;
use crate::error::Result;
use crate::order::ClearWrite;
use crate::runtime::Envelope;
use crate::tier::{ClearOp, Message};
use crate::write_behind::Written;

impl Engine {
    /// Hides a scope in every tier at once, and has the backends record it.
    pub(crate) async fn clear(&self, scope: Scope) -> Result<()> {
        self.check_open()?;
        let route = self.route.load_full();
        let clear = Arc::new(ClearWrite::begin(&self.order, &self.runtime, scope));
        self.flights.detach_scope(&clear.scope);
        #[cfg(feature = "zstd")]
        if clear.scope == Scope::All {
            self.codecs.dictionaries().forgotten();
        }
        // Before anything is awaited: a change that is pending and covered must not be sent after this.
        let forget = |tier: &RouteTier| tier.core.clear_behind(&clear.scope, clear.stamp);
        let forgotten: Vec<_> = route.written.iter().map(forget).collect();
        let answers = route.written.iter().zip(forgotten).map(|(tier, forgotten)| {
            let (op, answer) = ClearOp::new(&tier.core, &clear);
            self.clear_tier(tier, Message::Clear(op), answer, forgotten)
        });
        let answers: Vec<_> = answers.collect();
        #[cfg(feature = "backplane")]
        let (scope, stamp) = (clear.scope.clone(), clear.stamp);
        drop(clear);
        // Every failure is retried in the background; the first one is told.
        let answers = join_all(answers).await;
        #[cfg(feature = "backplane")]
        if let Some(link) = &self.link {
            link.tell_clear(&scope, stamp);
        }
        answers.into_iter().collect::<Result<()>>()
    }

    async fn clear_tier(
        &self,
        tier: &RouteTier,
        message: Message,
        answer: oneshot::Receiver<Result<()>>,
        forgotten: Option<Written>,
    ) -> Result<()> {
        let deadline = self.runtime.now().after(tier.core.options.write_deadline);
        let sent = async {
            if let Some(forgotten) = forgotten {
                forgotten.await?;
            }
            // Rejected, it is recorded later: the tier keeps what is dropped here.
            let sent = tier.address.send(Envelope::new(message)).await;
            sent.map_err(|rejected| rejection(rejected.reason))?;
            answer.await.unwrap_or_else(|_| Err(restarted()))
        };
        self.runtime
            .deadline(deadline, sent)
            .await
            .unwrap_or_else(|| Err(tier.core.overdue_write()))
            .map_err(|error| error.at_tier(&tier.core.label))
    }
}
