//! One call of a faulty backend: what was drawn for it, carried out.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;

use tierkeep::runtime::{BoxFuture, RuntimeHandle, TaskError};
use tierkeep::{BackendResult, Error, ErrorKind};

use super::plan::{Fault, FaultPlan, Op};

/// The call itself, for the entries that it reaches.
pub(super) type Run<B, I, T> = fn(Arc<B>, Vec<I>) -> BoxFuture<'static, Vec<BackendResult<T>>>;

pub(super) struct Call<B, I, T> {
    pub(super) op: Op,
    pub(super) run: Run<B, I, T>,
    /// What a mutation says that was not done.
    pub(super) pretend: fn() -> T,
    /// Leaves half of what is to be written.
    pub(super) tear: fn(I) -> I,
    /// Damages what was read.
    pub(super) corrupt: fn(&FaultPlan, T) -> T,
}

impl<B, I, T> Call<B, I, T>
where
    B: Send + Sync + 'static,
    I: Send + 'static,
    T: Send + 'static,
{
    pub(super) async fn make(
        self,
        backend: Arc<B>,
        runtime: &RuntimeHandle,
        plan: &FaultPlan,
        mut items: Vec<I>,
    ) -> Vec<BackendResult<T>> {
        let (whole, faults) = plan.draw(self.op, items.len());
        match whole {
            Some(Fault::Delay) => runtime.sleep(plan.delay()).await,
            Some(Fault::Hang) => return pending().await,
            Some(Fault::LostReply) => {
                let done = plan.part(1, items.len());
                items.truncate(done);
                self.apply(backend, plan.clone(), items, faults).await;
                return pending().await;
            }
            Some(Fault::Panic) => {
                let done = plan.part(0, items.len().saturating_sub(1));
                items.truncate(done);
                if done > 0 {
                    self.apply(backend, plan.clone(), items, faults).await;
                }
                // Not `panic!`: the hook would print a backtrace for each of thousands.
                resume_unwind(Box::new(format!("injected panic in {:?}", self.op)))
            }
            Some(kind @ (Fault::HangThenComplete | Fault::Zombie)) => {
                let (sleep, plan) = (runtime.sleep(plan.lateness()), plan.clone());
                let task = runtime.spawn(async move {
                    sleep.await;
                    self.apply(backend, plan, items, faults).await
                });
                if kind == Fault::Zombie {
                    return pending().await; // the task goes on by itself
                }
                return match task.await {
                    Ok(results) => results,
                    Err(TaskError::Panicked(message)) => resume_unwind(Box::new(message)),
                    Err(TaskError::Aborted) => pending().await,
                };
            }
            _ => {}
        }
        self.apply(backend, plan.clone(), items, faults).await
    }

    /// Runs the call for the entries that it reaches, and gives each its answer.
    async fn apply(
        &self,
        backend: Arc<B>,
        plan: FaultPlan,
        items: Vec<I>,
        faults: Vec<Option<Fault>>,
    ) -> Vec<BackendResult<T>> {
        let reached = |fault: &Option<Fault>| !fault.is_some_and(Fault::prevents);
        let count = items.len();
        let items: Vec<I> = items
            .into_iter()
            .zip(&faults)
            .filter(|(_, fault)| reached(fault))
            .map(|(item, fault)| if *fault == Some(Fault::Torn) { (self.tear)(item) } else { item })
            .collect();
        let results = if items.is_empty() { Vec::new() } else { (self.run)(backend, items).await };
        let mut results = results.into_iter();
        let mut answers = Vec::with_capacity(count);
        for fault in faults.into_iter().take(count) {
            answers.push(match fault {
                Some(Fault::ReportedButNotApplied) => Ok((self.pretend)()),
                Some(fault) if fault.prevents() => Err(injected(fault, self.op)),
                fault => {
                    // A backend that answers for fewer entries than it was given is passed on as such.
                    let Some(result) = results.next() else { break };
                    match fault {
                        Some(fault @ (Fault::AppliedButFails | Fault::Torn)) => Err(injected(fault, self.op)),
                        Some(Fault::Corrupt) => result.map(|value| (self.corrupt)(&plan, value)),
                        _ => result,
                    }
                }
            });
        }
        answers
    }
}

pub(super) fn injected(fault: Fault, op: Op) -> Error {
    Error::new(ErrorKind::Backend, format!("injected {fault:?} in {op:?}"))
}
