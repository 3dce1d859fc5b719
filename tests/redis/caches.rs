//! Redis below a cache: what goes wrong there is a miss here, and heals.

use std::time::Duration;

use tierkeep::backend::{ConnectionState, RedisBackend, RedisDriver};
use tierkeep::{Cache, ErrorKind, MemoryBackend, Region};
use tierkeep_async_std::AsyncStdRuntime;
use tierkeep_smol::SmolRuntime;
use tierkeep_test_servers::RedisServer;
use tierkeep_tokio::TokioRuntime;

use crate::support::{SERVER, builder, namespace, patient, until};

fn region(cache: &Cache) -> Region<u32, u32> {
    cache.region("n").ttl(Duration::from_secs(100)).build().unwrap()
}

#[test]
fn foreign_bytes_and_other_types_are_counted_misses_and_heal() {
    smol::block_on(async {
        let (namespace, mut raw) = (namespace(), SERVER.client().unwrap());
        let redis = builder(&SERVER, &namespace).build().unwrap();
        let cache = Cache::builder(SmolRuntime::new()).tier(patient(redis)).build().await.unwrap();
        let region = region(&cache);
        let name = |id: u32| format!("{namespace}:n:v1:{id}");
        region.set(&1, 1).await.unwrap();
        raw.command(&["SETRANGE", &name(1), "20", "damaged"]).unwrap();
        raw.command(&["SET", &name(2), "foreign"]).unwrap();
        raw.command(&["SET", &name(3), ""]).unwrap();
        raw.command(&["RPUSH", &name(4), "a list"]).unwrap();
        for id in 1..=4 {
            assert!(region.get(&id).await.is_none(), "{id}");
        }
        let reads = &cache.inspect().tiers[0].reads;
        assert_eq!(reads.decode_failed, 3, "{reads:?}");
        for id in 1..=4 {
            region.set(&id, id).await.unwrap();
            assert_eq!(region.get(&id).await.as_deref(), Some(&id));
        }
    });
}

#[test]
fn a_cache_starts_and_serves_while_redis_is_down_and_finds_it_when_it_is_up() {
    let server = RedisServer::start().unwrap();
    server.kill().unwrap();
    smol::block_on(async {
        let redis = builder(&server, "n").max_backoff(Duration::from_millis(200)).build().unwrap();
        assert_eq!(redis.stats().state, ConnectionState::Idle);
        let runtime = tierkeep::runtime::RuntimeHandle::new(SmolRuntime::new());
        let tier = patient(redis.clone()).breaker(tierkeep::BreakerOptions::disabled());
        let memory = MemoryBackend::entries(100);
        let cache = Cache::builder(runtime.clone()).tier(memory).tier(tier).build().await.unwrap();
        let region = region(&cache);
        region.set(&1, 1).await.unwrap();
        assert_eq!(region.get(&1).await.as_deref(), Some(&1), "from memory");
        assert!(region.get(&2).await.is_none());
        assert_eq!(redis.stats().state, ConnectionState::Disconnected);
        assert!(redis.stats().last_error.is_some());

        server.restart().unwrap();
        until(&runtime, "connecting", async || redis.stats().state == ConnectionState::Connected).await;
        region.set(&3, 3).await.unwrap();
        let read = async || region.try_get(&3).await.unwrap().degraded.is_empty();
        until(&runtime, "the quarantine's end", read).await;

        // What was lost on the way is connected anew, without being asked twice.
        server.restart().unwrap();
        until(&runtime, "a second connection", async || {
            region.get(&4).await;
            redis.stats().state == ConnectionState::Connected && redis.stats().connects >= 2
        })
        .await;
    });
}

#[test]
fn a_driver_that_the_runtime_cannot_drive_is_refused_before_any_connection() {
    let refused = |driver, runtime: tierkeep::runtime::RuntimeHandle| {
        let redis = RedisBackend::builder(driver).url(&SERVER.url()).namespace("n").build().unwrap();
        let watched = redis.clone();
        let error = smol::block_on(Cache::builder(runtime).tier(redis).build()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(watched.stats().state, ConnectionState::Idle);
        error.to_string()
    };
    let tokio = tokio::runtime::Runtime::new().unwrap();
    let text = refused(RedisDriver::Smol, TokioRuntime::new(tokio.handle().clone()).into());
    assert!(text.contains("RedisDriver::Tokio") && text.contains("tier `redis`"), "{text}");
    for runtime in [SmolRuntime::new().into(), AsyncStdRuntime::new().into()] {
        let text = refused(RedisDriver::Tokio, runtime);
        assert!(text.contains("RedisDriver::Smol"), "{text}");
    }
}

/// Three caches over one server in one process, each on its own runtime and driver.
#[test]
fn both_drivers_serve_in_one_process() {
    let namespace = namespace();
    let build = |driver| {
        RedisBackend::builder(driver).url(&SERVER.url()).namespace(&namespace).build().map(patient).unwrap()
    };
    let tokio = tokio::runtime::Runtime::new().unwrap();
    let on_tokio = tokio
        .block_on(async {
            Cache::builder(TokioRuntime::current()).tier(build(RedisDriver::Tokio)).build().await
        })
        .unwrap();
    let on_smol =
        smol::block_on(Cache::builder(SmolRuntime::new()).tier(build(RedisDriver::Smol)).build()).unwrap();
    let on_async_std = async_std::task::block_on(
        Cache::builder(AsyncStdRuntime::new()).tier(build(RedisDriver::Smol)).build(),
    )
    .unwrap();
    let caches = [on_tokio, on_smol, on_async_std];
    let regions = caches.each_ref().map(region);
    for (writer, id) in regions.iter().zip(0..) {
        // From within tokio, so that what runs on smol could be mistaken for tokio's.
        tokio.block_on(writer.set(&id, id)).unwrap();
        for reader in &regions {
            assert_eq!(tokio.block_on(reader.get(&id)).as_deref(), Some(&id));
        }
    }
}
