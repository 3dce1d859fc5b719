//! Processes that lost the same server do not come back in step.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tierkeep::backend::{OpenContext, RedisBackend, RedisDriver};
use tierkeep::runtime::{BlockingJob, BoxFuture, Instant, Runtime, RuntimeHandle};
use tierkeep::{Backend, Timestamp};
use tierkeep_smol::SmolRuntime;
use tierkeep_test_servers::{FaultProxy, Network};

use crate::support::{SERVER, key, ms, until};

/// smol that notes for how long it is asked to sleep.
#[derive(Debug)]
struct Noting {
    smol: SmolRuntime,
    sleeps: Arc<Mutex<Vec<Duration>>>,
}

impl Runtime for Noting {
    fn name(&self) -> &'static str {
        self.smol.name()
    }

    fn execute(&self, task: BoxFuture<'static, ()>) {
        self.smol.execute(task);
    }

    fn execute_blocking(&self, job: BlockingJob) {
        self.smol.execute_blocking(job);
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        self.sleeps.lock().unwrap().push(deadline.since(self.smol.now()));
        self.smol.sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        self.smol.now()
    }

    fn wall(&self) -> Timestamp {
        self.smol.wall()
    }

    fn random(&self) -> u64 {
        self.smol.random()
    }
}

/// The pauses of a backend that nobody lets connect, until there are that many.
async fn pauses(url: &str, count: usize) -> Vec<Duration> {
    let sleeps = Arc::new(Mutex::new(Vec::new()));
    let runtime = RuntimeHandle::new(Noting { smol: SmolRuntime::new(), sleeps: Arc::clone(&sleeps) });
    // Longer than any pause, so that the attempts' own limits are told from these.
    let (longest, limit) = (ms(400), ms(60_000));
    let builder = RedisBackend::builder(RedisDriver::Smol).url(url).namespace("n");
    let redis = builder.max_backoff(longest).connect_timeout(limit).build().unwrap();
    redis.open(&OpenContext::new(runtime)).await.unwrap();
    assert!(redis.read(&key(1)).await.is_err());
    let watch = RuntimeHandle::new(SmolRuntime::new());
    let noted =
        || sleeps.lock().unwrap().iter().copied().filter(|sleep| *sleep <= longest).collect::<Vec<_>>();
    until(&watch, "attempts", async || noted().len() >= count).await;
    noted()
}

#[test]
fn backends_that_lost_a_server_together_do_not_try_in_step() {
    let proxy = FaultProxy::to(SERVER.addr()).unwrap();
    proxy.set(Network::Refuse);
    let url = proxy.url();
    let all = smol::block_on(futures_util::future::join_all((0..4).map(|_| pauses(&url, 6))));
    for pauses in &all {
        let mut backoff = ms(100);
        for pause in pauses {
            // Half of it is sure; a little may have passed since the clock was read.
            let range = backoff.mul_f64(0.45)..=backoff;
            assert!(range.contains(pause), "{pause:?} of {backoff:?}: {pauses:?}");
            backoff = (backoff * 2).min(ms(400));
        }
    }
    // Six pauses of up to 200 ms of jitter: in step means the same to the millisecond.
    for (at, one) in all.iter().enumerate() {
        for other in &all[at + 1..] {
            let apart = one.iter().zip(other).filter(|(a, b)| a.abs_diff(**b) > ms(1)).count();
            assert!(apart >= 3, "in step: {one:?} and {other:?}");
        }
    }
}
