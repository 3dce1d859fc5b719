//! Clusters: batches find their nodes, also while slots move.

use std::sync::LazyLock;

use futures_util::future::join_all;
use tierkeep::backend::{ConnectionState, RedisBackend, RedisBuilder, RedisDriver, Scope};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Backend, CacheKey, CacheValue, DeleteStatus, Entry, Meta, Payload, Raw, Stamp};
use tierkeep_smol::SmolRuntime;
use tierkeep_test_servers::{RedisCluster, RedisServer};

use crate::support::{SOON, key, ms, namespace, open, until};

static CLUSTER: LazyLock<RedisCluster> = LazyLock::new(|| RedisCluster::start().unwrap());

fn backend(namespace: &str) -> (RedisBackend, RuntimeHandle) {
    let redis = RedisBackend::builder(RedisDriver::Smol).cluster(CLUSTER.urls()).namespace(namespace);
    let redis = redis.build().unwrap();
    let runtime = RuntimeHandle::new(SmolRuntime::new());
    open(&redis, &runtime);
    (redis, runtime)
}

fn stamp(runtime: &RuntimeHandle, count: u16) -> Stamp {
    Stamp { time: (runtime.wall().as_millis() << 16) + u64::from(count), node: 1 }
}

fn entries(keys: &[CacheKey], stamp: Stamp) -> Vec<(CacheKey, Entry)> {
    let entry = |key: &CacheKey| {
        let meta = Meta { stamp, ..Meta::default() };
        Entry::new(Payload::Bytes(Raw::copy_from_slice(key.as_str().as_bytes())), meta)
    };
    keys.iter().map(|key| (key.clone(), entry(key))).collect()
}

fn text(value: Option<CacheValue<Raw>>) -> Option<String> {
    value.map(|value| String::from_utf8(value.into_inner().to_vec()).unwrap())
}

#[test]
fn batches_are_split_and_answered_in_order() {
    let (redis, runtime) = backend(&namespace());
    let keys: Vec<_> = (0..300).map(key).collect();
    smol::block_on(async {
        for written in redis.write_entries(entries(&keys, stamp(&runtime, 1))).await {
            written.unwrap();
        }
        let read = redis.read_many(&keys).await;
        for (key, read) in keys.iter().zip(read) {
            assert_eq!(text(read.unwrap()).as_deref(), Some(key.as_str()));
        }
        let old = redis.write_entries(entries(&keys, stamp(&runtime, 0))).await;
        let newer = Stamp { time: 1, node: 1 };
        let older = redis.write_entries(entries(&keys, newer)).await;
        assert_eq!(old.len(), 300);
        assert!(older.iter().all(|answer| answer.as_ref().is_err_and(|e| e.superseded_by().is_some())));
        let gone: Vec<_> = keys.iter().map(|key| (key.clone(), stamp(&runtime, 9))).collect();
        for removed in redis.remove_entries(gone).await {
            assert_eq!(removed.unwrap(), DeleteStatus::Deleted(1));
        }
        assert!(redis.read_many(&keys).await.into_iter().all(|read| read.unwrap().is_none()));
    });
    let stats = redis.stats();
    assert_eq!((stats.state, stats.nodes), (ConnectionState::Connected, 3));
}

#[test]
fn a_clear_reaches_every_node_and_every_process() {
    let space = namespace();
    let ((redis, runtime), (other, _)) = (backend(&space), backend(&space));
    let keys: Vec<_> = (0..100).map(key).collect();
    smol::block_on(async {
        for written in redis.write_entries(entries(&keys, stamp(&runtime, 1))).await {
            written.unwrap();
        }
        assert!(other.read_many(&keys).await.into_iter().all(|read| read.unwrap().is_some()));
        redis.clear(&Scope::All, stamp(&runtime, 2)).await.unwrap();
        assert!(other.read_many(&keys).await.into_iter().all(|read| read.unwrap().is_none()));
        until(&runtime, "the deletion", async || redis.stats().cleared == 100).await;
    });
}

/// In a cluster of its own: slots move from node to node while everybody reads and writes.
#[test]
fn keys_are_found_while_their_slots_move() {
    let cluster = RedisCluster::start().unwrap();
    let redis =
        RedisBackend::builder(RedisDriver::Smol).cluster(cluster.urls()).namespace("n").build().unwrap();
    let runtime = RuntimeHandle::new(SmolRuntime::new());
    open(&redis, &runtime);
    let keys: Vec<_> = (0..200).map(key).collect();
    smol::block_on(async {
        for written in redis.write_entries(entries(&keys, stamp(&runtime, 1))).await {
            written.unwrap();
        }
        let slot = cluster.slot(&format!("n:{}", keys[0])).unwrap();
        let owner = cluster.owner(slot).unwrap();
        let migration = cluster.begin_migration(slot, (owner + 1) % 3).unwrap();
        // Half moved: the old node redirects for what it has no more.
        let read = async || redis.read_many(&keys).await.into_iter().all(|read| read.unwrap().is_some());
        assert!(read().await);
        cluster.move_keys(migration, 1000).unwrap();
        assert!(read().await, "asking");
        for written in redis.write_entries(entries(&keys, stamp(&runtime, 2))).await {
            written.unwrap();
        }
        cluster.finish_migration(migration).unwrap();
        assert!(read().await, "moved");
        let reads = join_all((0..8).map(|_| redis.read_many(&keys))).await;
        assert!(reads.into_iter().flatten().all(|read| read.unwrap().is_some()));
    });
}

/// Without the requirement of full coverage, so that nodes serve what they have.
fn partial(
    options: impl FnOnce(RedisBuilder) -> RedisBuilder,
) -> (RedisCluster, RedisBackend, RuntimeHandle) {
    let server = RedisServer::builder().config("cluster-require-full-coverage no");
    let cluster = RedisCluster::start_with(server).unwrap();
    let redis = RedisBackend::builder(RedisDriver::Smol).cluster(cluster.urls()).namespace("n");
    let redis = options(redis).build().unwrap();
    let runtime = RuntimeHandle::new(SmolRuntime::new());
    open(&redis, &runtime);
    (cluster, redis, runtime)
}

#[test]
fn a_node_that_refuses_fails_its_own_keys_only() {
    let (cluster, redis, runtime) = partial(|builder| builder);
    let keys: Vec<_> = (0..200).map(key).collect();
    smol::block_on(async {
        for written in redis.write_entries(entries(&keys, stamp(&runtime, 1))).await {
            written.unwrap();
        }
        assert!(redis.read_many(&keys).await.into_iter().all(|read| read.unwrap().is_some()));
        let owners: Vec<_> = keys
            .iter()
            .map(|key| cluster.owner(cluster.slot(&format!("n:{key}")).unwrap()).unwrap())
            .collect();
        let theirs = |read: &[tierkeep::BackendResult<Option<CacheValue<Raw>>>], node: usize| {
            let of_node = owners.iter().zip(read).filter(|(owner, _)| **owner == node);
            of_node.map(|(_, read)| read.as_ref().is_ok_and(Option::is_some)).collect::<Vec<_>>()
        };
        cluster.nodes()[0].command(&["CLUSTER", "DELSLOTSRANGE", "0", "5460"]).unwrap();
        for _ in 0..20 {
            let read = redis.read_many(&keys).await;
            assert!(theirs(&read, 0).iter().all(|hit| !hit), "nobody has them");
            for node in [1, 2] {
                assert!(theirs(&read, node).iter().all(|hit| *hit), "node {node} has them");
            }
        }
        // Denied the clears' version alone, a node cannot tell what they hide.
        cluster.nodes()[0].command(&["CLUSTER", "ADDSLOTSRANGE", "0", "5460"]).unwrap();
        until(&runtime, "healing", async || {
            redis.read_many(&keys).await.iter().all(|read| read.as_ref().is_ok_and(Option::is_some))
        })
        .await;
        let rules = ["ACL", "SETUSER", "default", "resetkeys", "~n:user:*"];
        cluster.nodes()[1].command(&rules).unwrap();
        let read = redis.read_many(&keys).await;
        assert!(theirs(&read, 1).iter().all(|hit| !hit));
        assert!(theirs(&read, 0).into_iter().chain(theirs(&read, 2)).all(|hit| hit));
    });
}

#[test]
fn a_master_that_stands_still_stalls_no_others_keys() {
    // Whoever waits for the one that stands still waits past every deadline.
    let (cluster, redis, runtime) = partial(|builder| builder.silence_timeout(SOON));
    let keys: Vec<_> = (0..200).map(key).collect();
    smol::block_on(async {
        let tier = tierkeep::Tier::new(redis.clone()).read_deadline(ms(2000)).write_deadline(SOON);
        let cache = tierkeep::Cache::builder(runtime.clone()).tier(tier).build().await.unwrap();
        let numbers: tierkeep::Region<u64, u64> = cache.region("n").no_expiry().build().unwrap();
        for written in redis.write_entries(entries(&keys, stamp(&runtime, 1))).await {
            written.unwrap();
        }
        for key in 0..60 {
            numbers.set(&key, key).await.unwrap();
        }
        let owner =
            |key: &u64| cluster.owner(cluster.slot(&format!("n:{}", numbers.key(key))).unwrap()).unwrap();
        let (theirs, others): (Vec<u64>, Vec<u64>) = (0..60).partition(|key| owner(key) == 0);
        cluster.nodes()[0].pause().unwrap();
        // The first calls find out.
        let mut missed = 0;
        let soon = runtime.now().after(ms(300));
        while runtime.now() < soon {
            let _ = runtime.deadline(soon, redis.read_many(&keys)).await;
        }
        for _ in 0..100 {
            let all: Vec<_> = theirs.iter().chain(&others).copied().collect();
            let reads = join_all(all.iter().map(|key| numbers.get(key))).await;
            let hits = reads.iter().skip(theirs.len()).filter(|hit| hit.is_some()).count();
            missed += usize::from(hits < others.len());
        }
        cluster.nodes()[0].resume().unwrap();
        assert!(missed < 20, "in {missed} of 100 rounds the others' keys missed");
    });
}

/// It answers, takes itself for a master, and knows of no other: the map has to come from one that sees the cluster.
#[test]
fn a_map_from_a_master_that_is_cut_off_is_not_believed() {
    let cluster = RedisCluster::start().unwrap();
    let (redis, runtime) = {
        let redis = RedisBackend::builder(RedisDriver::Smol).cluster(cluster.urls()).namespace("n");
        (redis.build().unwrap(), RuntimeHandle::new(SmolRuntime::new()))
    };
    open(&redis, &runtime);
    let keys: Vec<_> = (0..100).map(key).collect();
    let is_theirs = |key: &CacheKey| cluster.slot(&format!("n:{key}")).unwrap() > 5460;
    let (theirs, _): (Vec<_>, Vec<_>) = keys.iter().cloned().partition(is_theirs);
    smol::block_on(async {
        for written in redis.write_entries(entries(&keys, stamp(&runtime, 1))).await {
            written.unwrap();
        }
        let lonely = &cluster.nodes()[0];
        for other in &cluster.nodes()[1..] {
            let id = other.command(&["CLUSTER", "MYID"]).unwrap().text();
            lonely.command(&["CLUSTER", "FORGET", &id]).unwrap();
        }
        until(&runtime, "its being alone", async || {
            lonely.command(&["CLUSTER", "INFO"]).unwrap().text().contains("cluster_state:fail")
        })
        .await;
        let urls = [lonely.url(), cluster.nodes()[1].url()];
        let redis = RedisBackend::builder(RedisDriver::Smol).cluster(urls).namespace("n").build().unwrap();
        open(&redis, &runtime);
        until(&runtime, "finding the others", async || {
            redis.read_many(&theirs).await.into_iter().all(|read| read.is_ok_and(|value| value.is_some()))
        })
        .await;
    });
}

/// What the map and redirections name are reached with TLS too, and with the same user.
#[cfg(all(feature = "redis-tokio-tls", feature = "redis-smol-tls"))]
#[test]
fn a_cluster_with_tls_and_a_user() {
    use tierkeep::backend::Credentials;
    let certificates = tierkeep_test_servers::Certificates::new().unwrap();
    let server = RedisServer::builder().tls(&certificates).user("default", "off");
    let cluster = RedisCluster::start_with(server.user("app", "on >pass ~* &* +@all")).unwrap();
    let urls = cluster.urls();
    assert!(urls[0].starts_with("rediss://"));
    let build = |driver| {
        let builder = RedisBackend::builder(driver).cluster(&urls[..1]).namespace("n");
        let builder = builder.tls_authority(certificates.authority_pem());
        builder.credentials(Credentials::user("app", "pass")).build().unwrap()
    };
    let keys: Vec<_> = (0..200).map(key).collect();
    let works = async |redis: RedisBackend, runtime: RuntimeHandle| {
        redis.open(&tierkeep::backend::OpenContext::new(runtime.clone())).await.unwrap();
        for written in redis.write_entries(entries(&keys, stamp(&runtime, 1))).await {
            written.unwrap();
        }
        let slot = cluster.slot(&format!("n:{}", keys[0])).unwrap();
        let to = (cluster.owner(slot).unwrap() + 1) % 3;
        let migration = cluster.begin_migration(slot, to).unwrap();
        cluster.move_keys(migration, 1000).unwrap();
        let read = async || redis.read_many(&keys).await.into_iter().all(|read| read.unwrap().is_some());
        assert!(read().await, "asking");
        cluster.finish_migration(migration).unwrap();
        assert!(read().await, "moved");
        assert_eq!(redis.stats().nodes, 3);
    };
    smol::block_on(works(build(RedisDriver::Smol), SmolRuntime::new().into()));
    let tokio = tokio::runtime::Runtime::new().unwrap();
    tokio.block_on(async {
        works(build(RedisDriver::Tokio), tierkeep_tokio::TokioRuntime::current().into()).await;
    });
}

#[cfg(feature = "backplane")]
#[test]
fn a_message_is_published_while_the_master_of_its_channel_is_dead() {
    use tierkeep::backplane::Backplane;
    let cluster = RedisCluster::start().unwrap();
    let builder = RedisBackend::builder(RedisDriver::Smol).cluster(cluster.urls()).namespace("n");
    let redis = builder.build().unwrap();
    let runtime = RuntimeHandle::new(SmolRuntime::new());
    open(&redis, &runtime);
    let backplane = redis.backplane();
    smol::block_on(async {
        backplane.publish(&runtime, Raw::from_static(b"before")).await.unwrap();
        let owner = cluster.owner(cluster.slot("n:!backplane").unwrap()).unwrap();
        cluster.nodes()[owner].kill().unwrap();
        let mut heard = backplane.subscribe(&runtime).await.unwrap();
        backplane.publish(&runtime, Raw::from_static(b"while it is dead")).await.unwrap();
        let heard = runtime.deadline(runtime.now().after(SOON), heard.next()).await;
        assert_eq!(heard.flatten().as_deref(), Some(&b"while it is dead"[..]));
    });
}
