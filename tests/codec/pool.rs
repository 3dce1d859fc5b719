//! The pool: bounded, first come first served, and its workers are free when their jobs have returned.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use tierkeep::codec::CodecPool;
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{ErrorKind, Result};

use super::support::HandRuntime;

type Call<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

fn pool(workers: usize, queue: usize) -> (Arc<CodecPool>, HandRuntime) {
    let runtime = HandRuntime::default();
    (CodecPool::new(RuntimeHandle::new(runtime.clone()), workers, queue), runtime)
}

/// Submits `job`: the call has been polled once.
fn submit<T: Send + 'static>(pool: &Arc<CodecPool>, job: impl FnOnce() -> T + Send + 'static) -> Call<T> {
    let pool = Arc::clone(pool);
    let mut call: Call<T> = Box::pin(async move { pool.run(job).await });
    assert!(call.as_mut().now_or_never().is_none());
    call
}

#[test]
fn no_more_jobs_than_workers_are_on_the_runtime() {
    let (pool, runtime) = pool(2, 10);
    let calls: Vec<_> = (0..5).map(|i| submit(&pool, move || i)).collect();
    assert_eq!((runtime.held(), pool.running(), pool.waiting()), (2, 2, 3));
    for done in 1..=5 {
        assert!(runtime.run_one());
        assert_eq!(runtime.held(), 2.min(5 - done));
    }
    assert_eq!((pool.running(), pool.waiting()), (0, 0));
    let results: Vec<i32> = calls.into_iter().map(|call| call.now_or_never().unwrap().unwrap()).collect();
    assert_eq!(results, [0, 1, 2, 3, 4]);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let (pool, runtime) = pool(1, 1);
    let calls = [submit(&pool, || 1), submit(&pool, || 2)];
    let error = pool.run(|| 3).now_or_never().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert_eq!(pool.rejected(), 1);
    assert!(runtime.run_one());
    let third = submit(&pool, || 3);
    while runtime.run_one() {}
    for call in calls.into_iter().chain([third]) {
        call.now_or_never().unwrap().unwrap();
    }
}

#[test]
fn jobs_start_in_the_order_they_came() {
    let (pool, runtime) = pool(1, 10);
    let order = Arc::new(Mutex::new(Vec::new()));
    let job = |i: usize| {
        let order = Arc::clone(&order);
        move || order.lock().unwrap().push(i)
    };
    let calls: Vec<_> = (0..6).map(|i| submit(&pool, job(i))).collect();
    while runtime.run_one() {}
    drop(calls);
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_dropped_caller_gives_its_place_up() {
    let (pool, runtime) = pool(1, 2);
    let first = submit(&pool, || 1);
    let second = submit(&pool, || panic!("nobody waits for it"));
    let third = submit(&pool, || 3);
    drop::<Call<()>>(second);
    assert_eq!(pool.waiting(), 1);
    let fourth = submit(&pool, || 4);
    while runtime.run_one() {}
    let results = [first, third, fourth].map(|call| call.now_or_never().unwrap().unwrap());
    assert_eq!(results, [1, 3, 4]);
    assert_eq!((pool.running(), pool.waiting()), (0, 0));
}

#[test]
fn a_dropped_caller_does_not_free_the_worker_of_its_job() {
    let (pool, runtime) = pool(1, 2);
    let ran = Arc::new(Mutex::new(false));
    let flag = Arc::clone(&ran);
    drop(submit(&pool, move || *flag.lock().unwrap() = true));
    assert_eq!(pool.running(), 1);
    let next = submit(&pool, || 2);
    assert_eq!(runtime.held(), 1);
    assert!(runtime.run_one());
    assert!(*ran.lock().unwrap());
    assert!(runtime.run_one());
    assert_eq!(next.now_or_never().unwrap().unwrap(), 2);
}

#[test]
fn a_panicking_job_frees_its_worker() {
    let (pool, runtime) = pool(1, 2);
    let first: Call<()> = submit(&pool, || panic!("job of the test"));
    let second = submit(&pool, || 2);
    while runtime.run_one() {}
    assert_eq!(first.now_or_never().unwrap().unwrap_err().kind(), ErrorKind::Panicked);
    assert_eq!(second.now_or_never().unwrap().unwrap(), 2);
    assert_eq!(pool.running(), 0);
}

#[test]
fn a_job_that_the_runtime_drops_frees_its_worker_and_tells_its_caller() {
    let (pool, runtime) = pool(1, 2);
    let first = submit(&pool, || 1);
    let second = submit(&pool, || 2);
    runtime.drop_one();
    assert_eq!(first.now_or_never().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert!(runtime.run_one());
    assert_eq!(second.now_or_never().unwrap().unwrap(), 2);
    assert_eq!(pool.running(), 0);
}

#[test]
fn a_caller_that_is_not_polled_delays_nobody() {
    let (pool, runtime) = pool(1, 2);
    let calls = [submit(&pool, || 1), submit(&pool, || 2), submit(&pool, || 3)];
    while runtime.run_one() {}
    assert_eq!((pool.running(), pool.waiting()), (0, 0));
    drop(calls);
}
