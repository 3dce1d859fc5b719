//! A process under test: a cache of memory over Redis that does as it is told.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

use tierkeep::backend::{RedisBackend, RedisDriver};
use tierkeep::composition::WritePolicy;
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Cache, MemoryBackend, Region, Tier};
use tierkeep_smol::SmolRuntime;
use tierkeep_tokio::TokioRuntime;

use crate::history::{Regions, work};
use crate::process::{MARK, clock};

#[test]
#[ignore = "run by the other tests, in processes of its own"]
fn a_process() {
    match std::env::var("TIERKEEP_COHERENCE_RUNTIME").as_deref() {
        Ok("tokio") => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let serving =
                async { serve(RuntimeHandle::new(TokioRuntime::current()), RedisDriver::Tokio).await };
            runtime.unwrap().block_on(serving);
        }
        Ok("smol") => smol::block_on(serve(RuntimeHandle::new(SmolRuntime::new()), RedisDriver::Smol)),
        _ => {} // not started by its parent
    }
}

fn told(name: &str) -> String {
    std::env::var(format!("TIERKEEP_COHERENCE_{name}")).unwrap()
}

fn answer(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent may have gone.
    let _ = writeln!(out, "{MARK}{line}").and_then(|()| out.flush());
}

async fn serve(runtime: RuntimeHandle, driver: RedisDriver) {
    let redis = RedisBackend::builder(driver).url(&told("URL")).namespace(told("NAMESPACE")).build().unwrap();
    let mut memory = Tier::new(MemoryBackend::entries(10_000));
    let cap: u64 = told("CAP").parse().unwrap();
    if cap > 0 {
        memory = memory.ttl_cap(Duration::from_millis(cap));
    }
    let mut builder = Cache::builder(runtime.clone())
        .tier(memory)
        .tier(redis.clone())
        .write_policy(WritePolicy::OptimisticParallel { require_all: true });
    if told("BACKPLANE") == "1" {
        builder = builder.backplane(redis.backplane());
    }
    let cache = builder.build().await.unwrap();
    let numbers: Region<u64, u64> = cache.region("n").no_expiry().build().unwrap();
    // Commands are read on a thread of their own: reading blocks.
    let (sender, commands) = std::sync::mpsc::channel::<String>();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
        // The parent has gone.
        std::process::exit(0);
    });
    answer("ready");
    loop {
        let Ok(command) = commands.try_recv() else {
            runtime.sleep(Duration::from_millis(1)).await;
            continue;
        };
        let words: Vec<_> = command.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            // When it returned. On a machine with much to do it may take more than one deadline.
            "set" => {
                while let Err(error) = numbers.set(&number(1), number(2)).await {
                    eprintln!("again, after: {error}");
                }
                answer(&clock().to_string());
            }
            // Reads until it holds the value in memory.
            "hold" => {
                let held = async || {
                    let hit = numbers.get(&number(1)).await;
                    hit.is_some_and(|hit| {
                        *hit == number(2) && hit.tier().is_some_and(|tier| tier.as_str() == "memory")
                    })
                };
                while !held().await {
                    runtime.sleep(Duration::from_millis(1)).await;
                }
                answer("held");
            }
            // When the last read began that showed something older than the value, or 0, and how long that may go on, in ms.
            "await" => {
                answer("waiting");
                answer(&until(&runtime, &numbers, number(1), number(2), number(3)).await);
            }
            // Waits until it hears whoever else there is.
            "up" => {
                while !up(&cache, number(1)) {
                    runtime.sleep(Duration::from_millis(5)).await;
                }
                answer("up");
            }
            "work" => {
                let calm = cache.region("calm").no_expiry().build().unwrap();
                let regions = Regions { busy: numbers.clone(), calm };
                work(&runtime, Arc::new(regions), number(1), number(2), answer).await;
            }
            _ => answer("what?"),
        }
    }
}

fn up(cache: &Cache, peers: u64) -> bool {
    let backplane = cache.inspect().backplane.unwrap();
    backplane.state == tierkeep::backplane::BackplaneState::Up && backplane.peers as u64 >= peers
}

async fn until(
    runtime: &RuntimeHandle,
    numbers: &Region<u64, u64>,
    key: u64,
    value: u64,
    within: u64,
) -> String {
    let deadline = runtime.now().after(Duration::from_millis(within));
    // Not when one first shows it: on a busy machine that may be long after the one before.
    let mut last = 0;
    loop {
        let began = clock();
        // Missing is not old.
        if numbers.get(&key).await.is_none_or(|hit| *hit >= value) {
            return last.to_string();
        }
        last = began;
        if runtime.now() >= deadline {
            return format!("still older after {within} ms");
        }
        runtime.sleep(Duration::from_micros(50)).await;
    }
}
