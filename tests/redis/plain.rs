//! Plain mode: what other programs write is read, and the other way round.

use std::time::Duration;

use tierkeep::backend::{RedisBackend, RedisDriver};
use tierkeep::codec::JsonFormat;
use tierkeep::{Cache, Region};
use tierkeep_smol::SmolRuntime;
use tierkeep_test_servers::{RedisServer, Reply};

use crate::support::{SERVER, builder, ms, namespace, patient, until};

async fn cache(namespace: &str) -> (RedisBackend, Cache, Region<Vec<u32>, u32>) {
    let redis = builder(&SERVER, namespace).plain_values(true).value_format(JsonFormat).build().unwrap();
    let cache = Cache::builder(SmolRuntime::new()).tier(patient(redis.clone())).build().await.unwrap();
    let region = cache.region("n").ttl(Duration::from_secs(100)).build().unwrap();
    (redis, cache, region)
}

#[test]
fn values_are_shared_with_programs_that_know_no_frames() {
    smol::block_on(async {
        let (namespace, mut raw) = (namespace(), SERVER.client().unwrap());
        let (redis, cache, region) = cache(&namespace).await;
        region.set(&7, vec![1, 2]).await.unwrap();
        let name = format!("{namespace}:n:v1:7");
        assert_eq!(raw.command(&["GET", &name]).unwrap(), Reply::Bulk(b"[1,2]".to_vec()));
        let Reply::Integer(left) = raw.command(&["PTTL", &name]).unwrap() else { panic!("no life") };
        assert!((90_000..=100_000).contains(&left), "{left}");

        raw.command(&["SET", &name, "[3]", "PX", "50000"]).unwrap();
        let hit = region.get(&7).await.unwrap();
        assert_eq!(*hit, [3]);
        region.remove(&7).await.unwrap();
        assert_eq!(raw.command(&["EXISTS", &name]).unwrap(), Reply::Integer(0));

        raw.command(&["SET", &name, "not JSON"]).unwrap();
        assert!(region.get(&7).await.is_none());
        region.set(&7, vec![4]).await.unwrap();
        assert_eq!(region.get(&7).await.as_deref(), Some(&vec![4]));
        region.clear().await.unwrap();
        assert!(region.get(&7).await.is_none());
        until(&SmolRuntime::new().into(), "the deletion", async || redis.stats().cleared == 1).await;
        assert_eq!(raw.command(&["EXISTS", &name]).unwrap(), Reply::Integer(0));
        raw.command(&["SET", &name, "[5]"]).unwrap();
        // What is read counts as written at the millisecond of the read: from the one after the clear's on it shows. Two
        // threads may tell the time a millisecond apart.
        let shows = tierkeep::runtime::system_wall().after(ms(2));
        while tierkeep::runtime::system_wall() <= shows {
            std::hint::spin_loop();
        }
        assert_eq!(region.get(&7).await.as_deref(), Some(&vec![5]), "written after the clear");
        cache.shutdown(Duration::from_secs(5)).await;
    });
}

#[test]
fn a_clear_among_many_foreign_keys_returns_and_spares_what_is_written_after_it() {
    let server = RedisServer::start().unwrap();
    let mut raw = server.client().unwrap();
    let fill = "for i = 1, 200000 do redis.call('SET', 'foreign:' .. i, 'x') end";
    raw.command(&["EVAL", fill, "0"]).unwrap();
    let redis = builder(&server, "n").plain_values(true).value_format(JsonFormat).build().unwrap();
    let runtime = tierkeep::runtime::RuntimeHandle::new(SmolRuntime::new());
    smol::block_on(async {
        let cache = Cache::builder(runtime.clone()).tier(patient(redis.clone())).build().await.unwrap();
        let region: Region<Vec<u32>, u32> = cache.region("n").ttl(Duration::from_secs(100)).build().unwrap();
        region.set(&1, vec![1]).await.unwrap();
        region.clear().await.unwrap();
        assert!(region.get(&1).await.is_none(), "whether it has been deleted yet or not");
        region.set(&2, vec![2]).await.unwrap();
        // For longer than the engine waits before it tries again what failed.
        let end = runtime.now().after(ms(10_000));
        while runtime.now() < end {
            let present = raw.command(&["EXISTS", "n:n:v1:2"]).unwrap();
            assert_eq!(present, Reply::Integer(1), "it was written after the clear");
            runtime.sleep(ms(20)).await;
        }
        assert_eq!(region.get(&2).await.as_deref(), Some(&vec![2]));
        until(&runtime, "the deletion", async || redis.stats().cleared == 1).await;
        assert_eq!(raw.command(&["DBSIZE"]).unwrap(), Reply::Integer(200_001), "foreign keys stay");
    });
}

#[test]
fn a_clear_that_meets_no_server_is_made_good_once() {
    use tierkeep_test_servers::{FaultProxy, Network};
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::to(server.addr()).unwrap();
    let redis = RedisBackend::builder(RedisDriver::Smol).url(&proxy.url()).namespace("n");
    let redis = redis.plain_values(true).value_format(JsonFormat).max_backoff(ms(100)).build().unwrap();
    let runtime = tierkeep::runtime::RuntimeHandle::new(SmolRuntime::new());
    smol::block_on(async {
        let cache = Cache::builder(runtime.clone()).tier(patient(redis.clone())).build().await.unwrap();
        let region: Region<Vec<u32>, u32> = cache.region("n").ttl(Duration::from_secs(100)).build().unwrap();
        region.set(&1, vec![1]).await.unwrap();
        proxy.set(Network::Refuse);
        let _ = region.clear().await;
        proxy.set(Network::Healthy);
        until(&runtime, "the deletion", async || redis.stats().cleared == 1).await;
        until(&runtime, "writing again", async || region.set(&1, vec![2]).await.is_ok()).await;
        until(&runtime, "reading again", async || region.get(&1).await.as_deref() == Some(&vec![2])).await;
    });
}

#[test]
fn plain_values_are_not_compressed() {
    #[derive(Debug)]
    struct Squeeze;
    impl tierkeep::codec::Compressor for Squeeze {
        fn id(&self) -> u8 {
            200
        }
        fn name(&self) -> &'static str {
            "squeeze"
        }
        fn compress(&self, bytes: &[u8], out: &mut Vec<u8>) -> tierkeep::Result<()> {
            out.extend_from_slice(bytes);
            Ok(())
        }
        fn decompress(&self, bytes: &[u8], _: usize) -> tierkeep::Result<Vec<u8>> {
            Ok(bytes.to_vec())
        }
    }
    let builder = RedisBackend::builder(RedisDriver::Smol).url("redis://127.0.0.1").namespace("n");
    let error = builder.plain_values(true).compressor(Squeeze).build().unwrap_err();
    assert_eq!(error.kind(), tierkeep::ErrorKind::Config);
}
