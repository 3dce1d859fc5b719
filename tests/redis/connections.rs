//! The ways to reach a server: sockets, users, passwords that change, TLS, an existing client, sentinels.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tierkeep::backend::{ConnectionState, Credentials, RedisBackend, RedisBuilder, RedisDriver};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Backend, Raw};
use tierkeep_test_servers::RedisServer;

use crate::support::{SERVER, SOON, World, builder, key, ms, namespace, open, read, until};

/// Opens a backend, and writes and reads a value through it.
fn works(builder: RedisBuilder) -> RedisBackend {
    let redis = builder.build().unwrap();
    open(&redis, &tierkeep_smol::SmolRuntime::new().into());
    let value = tierkeep::CacheValue::new(Raw::from_static(b"a"), None, None);
    smol::block_on(redis.write(&key(1), value)).unwrap();
    assert_eq!(read(&redis, &key(1)).as_deref(), Some("a"));
    redis
}

#[test]
fn a_unix_socket_a_database_and_an_existing_client() {
    let socket = format!("redis+unix://{}", SERVER.unix_socket().display());
    works(RedisBackend::builder(RedisDriver::Smol).url(&socket).namespace(namespace()));

    let space = namespace();
    works(builder(&SERVER, &space).database(3));
    let mut raw = SERVER.client().unwrap();
    raw.command(&["SELECT", "3"]).unwrap();
    let name = format!("{space}:{}", key(1));
    assert_eq!(raw.command(&["EXISTS", &name]).unwrap(), tierkeep_test_servers::Reply::Integer(1));
}

#[test]
fn a_rotated_password_needs_no_restart() {
    let server =
        RedisServer::builder().user("cache", "on >first ~n:* +@all -@dangerous +info").start().unwrap();
    let current = Arc::new(Mutex::new("first"));
    let shown = Arc::clone(&current);
    let provider = move || Credentials::user("cache", *shown.lock().unwrap());
    let redis = works(builder(&server, "n").credentials_from(provider));
    let runtime = RuntimeHandle::new(tierkeep_smol::SmolRuntime::new());

    server.command(&["ACL", "SETUSER", "cache", "resetpass", ">second"]).unwrap();
    *current.lock().unwrap() = "second";
    server.command(&["CLIENT", "KILL", "USER", "cache"]).unwrap();
    smol::block_on(until(&runtime, "logging in anew", async || redis.read(&key(1)).await.is_ok()));
    assert_eq!(read(&redis, &key(1)).as_deref(), Some("a"));
    assert!(redis.stats().connects >= 2);
}

#[test]
fn a_namespace_is_all_that_a_user_needs_to_be_allowed() {
    let rules = "on >pass ~n:* +mget +get +set +mset +pexpireat +unlink +getrange +eval +evalsha +scan +hset +hget +hlen \
                 +hexists +hvals +hgetall +del +time +ping +select";
    let server = RedisServer::builder().user("narrow", rules).start().unwrap();
    let redis = works(builder(&server, "n").credentials(Credentials::user("narrow", "pass")).database(1));
    let stamp = |time| tierkeep::Stamp { time, node: 1 };
    let mut removed = smol::block_on(redis.remove_entries(vec![(key(1), stamp(1 << 40))]));
    removed.remove(0).unwrap();
    // Refused by the script, not by the server.
    let refused = smol::block_on(stamped_write(&redis, stamp(1 << 39))).unwrap_err();
    assert_eq!(refused.superseded_by(), Some(stamp(1 << 40)), "{refused}");
    smol::block_on(redis.clear(&tierkeep::backend::Scope::All, stamp(1 << 50))).unwrap();
    assert_eq!(read(&redis, &key(1)), None);
}

async fn stamped_write(redis: &RedisBackend, stamp: tierkeep::Stamp) -> tierkeep::Result<()> {
    let meta = tierkeep::Meta { stamp, ..tierkeep::Meta::default() };
    let entry = tierkeep::Entry::new(tierkeep::Payload::Bytes(Raw::from_static(b"b")), meta);
    redis.write_entries(vec![(key(1), entry)]).await.remove(0)
}

/// Nothing but writes with stamps: a refusal stands inside the script's answer.
#[test]
fn writes_alone_notice_that_their_server_is_a_replica_now() {
    let (first, second) = (RedisServer::start().unwrap(), RedisServer::start().unwrap());
    second.follow(&first).unwrap();
    let proxy = tierkeep_test_servers::FaultProxy::to(first.addr()).unwrap();
    let redis = RedisBackend::builder(RedisDriver::Smol).url(&proxy.url()).namespace("n");
    let redis = redis.max_backoff(ms(200)).build().unwrap();
    let runtime = RuntimeHandle::new(tierkeep_smol::SmolRuntime::new());
    open(&redis, &runtime);
    let stamp = |time| tierkeep::Stamp { time, node: 1 };
    smol::block_on(stamped_write(&redis, stamp(1))).unwrap();
    first.fail_over_to(&second).unwrap();
    proxy.retarget(second.addr());
    smol::block_on(until(&runtime, "finding the new primary", async || {
        stamped_write(&redis, stamp(2)).await.is_ok()
    }));
}

#[test]
fn a_wrong_password_and_a_name_that_does_not_resolve_are_errors_that_say_so() {
    let server = RedisServer::builder().user("cache", "on >right ~* +@all").start().unwrap();
    let wrong = builder(&server, "n").credentials(Credentials::user("cache", "hunter2")).build().unwrap();
    let runtime = RuntimeHandle::new(tierkeep_smol::SmolRuntime::new());
    open(&wrong, &runtime);
    let error = smol::block_on(wrong.read(&key(1))).unwrap_err();
    assert!(error.message().contains("WRONGPASS") || error.message().contains("uthentication"), "{error}");
    assert!(!format!("{error:?} {:?} {wrong:?}", wrong.stats()).contains("hunter2"));
    assert_eq!(wrong.stats().state, ConnectionState::Disconnected);

    let nowhere = RedisBackend::builder(RedisDriver::Smol).url("redis://no-such-host.invalid").namespace("n");
    let nowhere = nowhere.build().unwrap();
    open(&nowhere, &runtime);
    let error = smol::block_on(nowhere.read(&key(1))).unwrap_err();
    assert!(error.message().contains("no-such-host.invalid"), "{error}");
}

#[test]
fn a_connection_from_which_nothing_comes_back_is_given_up() {
    use tierkeep_test_servers::{FaultProxy, Network};
    let proxy = FaultProxy::to(SERVER.addr()).unwrap();
    let silence = ms(1000);
    let url = SERVER.url().replace(&SERVER.addr().to_string(), &proxy.addr().to_string());
    let redis = RedisBackend::builder(RedisDriver::Smol).url(&url).namespace(namespace());
    let redis = works(redis.silence_timeout(silence).connect_timeout(silence));
    let runtime = RuntimeHandle::new(tierkeep_smol::SmolRuntime::new());
    proxy.set(Network::Blackhole);
    let before = redis.stats().disconnects;
    smol::block_on(until(&runtime, "noticing the silence", async || {
        let deadline = runtime.now().after(ms(20));
        let answer = runtime.deadline(deadline, redis.read(&key(1))).await;
        answer.is_some_and(|answer| answer.is_err()) && redis.stats().disconnects > before
    }));
    proxy.set(Network::Healthy);
    smol::block_on(until(&runtime, "healing", async || redis.read(&key(1)).await.is_ok()));
}

#[test]
fn a_connection_whose_answer_came_when_nobody_waited_is_kept() {
    let server = RedisServer::start().unwrap();
    let runtime = RuntimeHandle::new(tierkeep_smol::SmolRuntime::new());
    let mut silence = ms(200);
    // Anew with a longer one if a busy machine let what was to be a moment become as long as that.
    while !outlives_its_caller(&server, &runtime, silence) {
        silence *= 2;
    }
}

/// Whether the server stood still for less than half of `silence`; the connection was kept then.
fn outlives_its_caller(server: &RedisServer, runtime: &RuntimeHandle, silence: Duration) -> bool {
    let redis = works(builder(server, "n").silence_timeout(silence));
    let began = runtime.now();
    server.pause().unwrap();
    smol::block_on(async {
        let deadline = runtime.now().after(ms(10));
        assert!(runtime.deadline(deadline, redis.read(&key(1))).await.is_none(), "it stands still");
    });
    server.resume().unwrap();
    // The answer has come when the server has answered somebody else.
    server.command(&["PING"]).unwrap();
    if runtime.now().since(began) >= silence / 2 {
        return false;
    }
    // Idle for longer than a silence.
    smol::block_on(runtime.sleep(silence * 2));
    assert_eq!(read(&redis, &key(1)).as_deref(), Some("a"));
    assert_eq!((redis.stats().connects, redis.stats().disconnects), (1, 0));
    true
}

/// Publishes a message and hears it.
#[cfg(feature = "backplane")]
async fn hears_itself(redis: &RedisBackend, runtime: &RuntimeHandle) {
    use tierkeep::backplane::Backplane;
    let backplane = redis.backplane();
    let mut heard = backplane.subscribe(runtime).await.unwrap();
    backplane.publish(runtime, Raw::from_static(b"hello")).await.unwrap();
    let heard = runtime.deadline(runtime.now().after(SOON), heard.next()).await;
    assert_eq!(heard.flatten().as_deref(), Some(&b"hello"[..]));
}

#[cfg(feature = "backplane")]
#[test]
fn a_backplane_needs_its_channel_and_two_commands() {
    let rules = "on >pass ~n:* &n:!backplane +ping +publish +subscribe";
    let server = RedisServer::builder().user("narrow", rules).start().unwrap();
    let redis = builder(&server, "n").credentials(Credentials::user("narrow", "pass")).build().unwrap();
    let runtime = RuntimeHandle::new(tierkeep_smol::SmolRuntime::new());
    open(&redis, &runtime);
    smol::block_on(hears_itself(&redis, &runtime));
}

#[cfg(all(feature = "redis-tokio-tls", feature = "redis-smol-tls"))]
#[test]
fn tls_with_both_drivers() {
    use tierkeep::backend::OpenContext;
    let certificates = tierkeep_test_servers::Certificates::new().unwrap();
    let server = RedisServer::builder().tls(&certificates).start().unwrap();
    let url = server.url();
    assert!(url.starts_with("rediss://"), "{url}");
    let build = |driver| RedisBackend::builder(driver).url(&url).namespace("n");
    let authority = certificates.authority_pem();
    works(build(RedisDriver::Smol).tls_authority(authority));
    let tokio = tokio::runtime::Runtime::new().unwrap();
    tokio.block_on(async {
        let redis = build(RedisDriver::Tokio).tls_authority(authority).build().unwrap();
        let context = OpenContext::new(tierkeep_tokio::TokioRuntime::current().into());
        redis.open(&context).await.unwrap();
        assert!(redis.read(&key(1)).await.unwrap().is_some());
        #[cfg(feature = "backplane")]
        hears_itself(&redis, &context.runtime).await;
    });
    // Signed by nobody that the system knows.
    let stranger = build(RedisDriver::Smol).build().unwrap();
    open(&stranger, &tierkeep_smol::SmolRuntime::new().into());
    assert!(smol::block_on(stranger.read(&key(1))).is_err());
}

#[test]
fn a_replica_is_read_while_it_answers() {
    let replica = RedisServer::builder().replica_of(&SERVER).start().unwrap();
    let redis = works(builder(&SERVER, &namespace()));
    let reader = builder(&SERVER, &namespace()).read_replica(&replica.url()).build().unwrap();
    assert!(redis.authoritative() && !reader.authoritative());
    let runtime = RuntimeHandle::new(tierkeep_smol::SmolRuntime::new());
    open(&reader, &runtime);
    let value = tierkeep::CacheValue::new(Raw::from_static(b"b"), None, None);
    smol::block_on(reader.write(&key(2), value)).unwrap();
    smol::block_on(until(&runtime, "replication", async || {
        let read = reader.read(&key(2)).await;
        // Asked by nobody else.
        read.is_ok_and(|value| value.is_some()) && replica.info("cmdstat_mget").is_ok()
    }));
    replica.kill().unwrap();
    assert_eq!(read(&reader, &key(2)).as_deref(), Some("b"), "from where is written");
}

#[cfg(feature = "sentinel")]
#[test]
fn sentinels_lead_to_the_new_master() {
    let trio = tierkeep_test_servers::RedisSentinel::start().unwrap();
    let urls = [trio.sentinel().url()];
    let mut builder = RedisBackend::builder(RedisDriver::Smol).sentinels(urls, trio.name()).namespace("n");
    builder = builder.max_backoff(ms(200));
    let redis = works(builder);
    let runtime = RuntimeHandle::new(tierkeep_smol::SmolRuntime::new());
    trio.fail_over().unwrap();
    let value = || tierkeep::CacheValue::new(Raw::from_static(b"b"), None, None);
    smol::block_on(until(&runtime, "following the failover", async || {
        redis.write(&key(2), value()).await.is_ok()
    }));
    assert_eq!(read(&redis, &key(2)).as_deref(), Some("b"));
}

#[cfg(all(feature = "sentinel", feature = "redis-tokio-tls", feature = "redis-smol-tls"))]
#[test]
fn sentinels_with_tls_and_a_user_of_their_own() {
    use tierkeep::backend::OpenContext;
    use tierkeep_test_servers::{Certificates, RedisSentinel};
    let certificates = Certificates::new().unwrap();
    let all_rights = |password| format!("on >{password} ~* &* +@all");
    let trio = RedisSentinel::start_with(
        RedisServer::builder().tls(&certificates).user("default", "off").user("app", &all_rights("master")),
        RedisServer::builder()
            .tls(&certificates)
            .user("default", "off")
            .user("watcher", &all_rights("first")),
    );
    let trio = trio.unwrap();
    let urls = [trio.sentinel().url()];
    assert!(urls[0].starts_with("rediss://"));
    let current = Arc::new(Mutex::new("first"));
    let build = |driver| {
        let shown = Arc::clone(&current);
        RedisBackend::builder(driver)
            .sentinels(&urls, trio.name())
            .tls_authority(certificates.authority_pem())
            .credentials(Credentials::user("app", "master"))
            .sentinel_credentials_from(move || Credentials::user("watcher", *shown.lock().unwrap()))
            .max_backoff(crate::support::ms(200))
            .namespace("n")
    };
    // The sentinel's own password changes, and it is asked anew after a failover.
    let redis = works(build(RedisDriver::Smol));
    trio.sentinel().command(&["ACL", "SETUSER", "watcher", "resetpass", ">second"]).unwrap();
    *current.lock().unwrap() = "second";
    trio.fail_over().unwrap();
    let runtime = tierkeep::runtime::RuntimeHandle::new(tierkeep_smol::SmolRuntime::new());
    let value = || tierkeep::CacheValue::new(Raw::from_static(b"b"), None, None);
    smol::block_on(until(&runtime, "following the failover", async || {
        redis.write(&key(2), value()).await.is_ok()
    }));
    assert_eq!(read(&redis, &key(2)).as_deref(), Some("b"));
    let tokio = tokio::runtime::Runtime::new().unwrap();
    tokio.block_on(async {
        let redis = build(RedisDriver::Tokio).build().unwrap();
        let context = OpenContext::new(tierkeep_tokio::TokioRuntime::current().into());
        redis.open(&context).await.unwrap();
        assert!(redis.read(&key(2)).await.unwrap().is_some());
        #[cfg(feature = "backplane")]
        hears_itself(&redis, &context.runtime).await;
    });
    // In the URL, as well; and neither's password opens the other, nor is it told.
    let in_url = urls[0].replace("://", "://watcher:second@");
    works(build(RedisDriver::Smol).sentinels([&in_url], trio.name()));
    let refused = |builder: RedisBuilder| {
        let redis = builder.build().unwrap();
        open(&redis, &runtime);
        let error = smol::block_on(redis.read(&key(1))).unwrap_err();
        let said = format!("{error:?} {error} {redis:?} {:?}", redis.stats());
        assert!(!["master", "second", "wrong-one"].iter().any(|secret| said.contains(secret)), "{said}");
        error
    };
    let wrong = build(RedisDriver::Smol).sentinel_credentials(Credentials::user("watcher", "wrong-one"));
    assert!(refused(wrong).message().contains("uthentication"));
    let wrong = build(RedisDriver::Smol).credentials(Credentials::user("app", "wrong-one"));
    assert!(refused(wrong).message().contains("uthentication"));
    // Signed by nobody that the system knows.
    let stranger = RedisBackend::builder(RedisDriver::Smol).sentinels([&in_url], trio.name()).namespace("n");
    refused(stranger.credentials(Credentials::user("app", "master")));
}

/// A master that takes the connection, and hangs where it is asked whether it is one.
#[cfg(feature = "sentinel")]
#[test]
fn a_master_that_does_not_say_whether_it_is_one_is_given_up_in_time() {
    use tierkeep_test_servers::{Commands, FaultProxy, Network};
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::to(server.addr()).unwrap();
    let sentinel = RedisServer::builder().sentinel().start().unwrap();
    let port = proxy.addr().port().to_string();
    sentinel.command(&["SENTINEL", "MONITOR", "m", "127.0.0.1", &port, "1"]).unwrap();
    let redis = RedisBackend::builder(RedisDriver::Smol).sentinels([sentinel.url()], "m").namespace("n");
    let limits = |builder: RedisBuilder| {
        builder.connect_timeout(crate::support::ms(300)).max_backoff(crate::support::ms(300))
    };
    let redis = limits(redis).build().unwrap();
    let runtime = tierkeep::runtime::RuntimeHandle::new(tierkeep_smol::SmolRuntime::new());
    open(&redis, &runtime);
    proxy.set(Network::HangAt(Commands::Named("ROLE")));
    let soon = runtime.now().after(crate::support::ms(10_000));
    let read = smol::block_on(runtime.deadline(soon, redis.read(&key(1)))).expect("an answer");
    let error = read.unwrap_err();
    assert!(error.message().contains("within 300 ms"), "{error}");
    assert!(proxy.counts().lost_bytes > 0, "it was asked");
    proxy.set(Network::Healthy);
    smol::block_on(until(&runtime, "connecting", async || redis.read(&key(1)).await.is_ok()));
}

#[cfg(all(feature = "sentinel", feature = "backplane"))]
#[test]
fn a_dead_sentinel_in_front_keeps_no_backplane_down() {
    use tierkeep::backplane::BackplaneState;
    use tierkeep_test_servers::{FaultProxy, Network, RedisSentinel};
    let trio = RedisSentinel::start().unwrap();
    let dead = FaultProxy::to(trio.sentinel().addr()).unwrap();
    dead.set(Network::Blackhole);
    let urls = [dead.url(), trio.sentinel().url()];
    let redis = RedisBackend::builder(RedisDriver::Smol).sentinels(urls, trio.name()).namespace("n");
    let redis = redis.build().unwrap();
    let runtime = RuntimeHandle::new(tierkeep_smol::SmolRuntime::new());
    smol::block_on(async {
        let builder = tierkeep::Cache::builder(runtime.clone()).tier(tierkeep::MemoryBackend::entries(10));
        let cache = builder.tier(redis.clone()).backplane(redis.backplane()).build().await.unwrap();
        let up = async || cache.inspect().backplane.unwrap().state == BackplaneState::Up;
        until(&runtime, "hearing", up).await;
    });
}

#[test]
fn a_backend_that_nobody_opened_says_so() {
    let redis = builder(&SERVER, &namespace()).build().unwrap();
    let runtime = RuntimeHandle::new(tierkeep_smol::SmolRuntime::new());
    smol::block_on(async {
        let soon = || runtime.now().after(SOON);
        for _ in 0..2 {
            let read = runtime.deadline(soon(), redis.read(&key(1))).await.expect("an answer");
            assert!(read.unwrap_err().message().contains("is not open"));
            let removed = runtime.deadline(soon(), redis.remove(&key(1))).await.expect("an answer");
            assert!(removed.unwrap_err().message().contains("is not open"));
        }
    });
    assert_eq!(redis.stats().state, ConnectionState::Idle);
    open(&redis, &runtime);
    assert_eq!(read(&redis, &key(1)), None, "nothing was left behind");
}

/// The first call's task ends with its runtime before it has connected.
#[test]
fn a_connection_whose_runtime_ends_while_it_is_made_leaves_nobody_waiting() {
    use tierkeep::backend::OpenContext;
    use tierkeep_test_servers::{FaultProxy, Network};
    let proxy = FaultProxy::to(SERVER.addr()).unwrap();
    proxy.set(Network::Blackhole);
    let redis = RedisBackend::builder(RedisDriver::Tokio).url(&proxy.url()).namespace(namespace());
    let redis = redis.build().unwrap();
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(async {
        let runtime = RuntimeHandle::from(tierkeep_tokio::TokioRuntime::current());
        redis.open(&OpenContext::new(runtime.clone())).await.unwrap();
        let soon = runtime.now().after(ms(50));
        assert!(runtime.deadline(soon, redis.read(&key(1))).await.is_none(), "it is being connected");
    });
    drop(tokio);
    let watch = RuntimeHandle::new(tierkeep_smol::SmolRuntime::new());
    for _ in 0..2 {
        let soon = watch.now().after(SOON);
        let read = smol::block_on(watch.deadline(soon, redis.read(&key(1)))).expect("an answer");
        assert!(read.unwrap_err().message().contains("has ended"));
    }
}

#[test]
fn a_server_that_refuses_writes_is_read_and_not_connected_to_all_the_time() {
    use tierkeep_test_servers::{FaultProxy, Network};
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::to(server.addr()).unwrap();
    let redis = works(RedisBackend::builder(RedisDriver::Smol).url(&proxy.url()).namespace("n"));
    let runtime = RuntimeHandle::new(tierkeep_smol::SmolRuntime::new());
    proxy.set(Network::read_only());
    let stamp = |time| tierkeep::Stamp { time, node: 1 };
    let began = runtime.now();
    smol::block_on(async {
        for _ in 0..100 {
            for _ in 0..19 {
                assert!(redis.read(&key(1)).await.unwrap().is_some(), "it is read all the while");
            }
            assert!(stamped_write(&redis, stamp(1)).await.is_err());
        }
    });
    // A few at once, and then about one a second.
    let most = 15 + runtime.now().since(began).as_secs();
    let connects = redis.stats().connects;
    assert!((2..most).contains(&connects), "{connects} connections for 100 refusals, {most} at most");
    proxy.set(Network::Healthy);
    smol::block_on(until(&runtime, "healing", async || stamped_write(&redis, stamp(1)).await.is_ok()));
}

#[test]
fn a_replica_that_hangs_is_not_waited_for() {
    let replica = RedisServer::builder().replica_of(&SERVER).start().unwrap();
    let reader = builder(&SERVER, &namespace()).read_replica(&replica.url());
    // So that it is not given up for its silence meanwhile.
    let reader = reader.silence_timeout(10 * SOON).build().unwrap();
    let runtime = RuntimeHandle::new(tierkeep_smol::SmolRuntime::new());
    open(&reader, &runtime);
    let value = || tierkeep::CacheValue::new(Raw::from_static(b"b"), None, None);
    smol::block_on(reader.write(&key(2), value())).unwrap();
    smol::block_on(until(&runtime, "replication", async || {
        reader.read(&key(2)).await.unwrap().is_some() && replica.info("cmdstat_mget").is_ok()
    }));
    replica.pause().unwrap();
    smol::block_on(async {
        for _ in 0..50 {
            let soon = runtime.now().after(SOON);
            let read = runtime.deadline(soon, reader.read(&key(2))).await.expect("an answer");
            assert!(read.unwrap().is_some());
        }
    });
    replica.resume().unwrap();
}

#[test]
fn an_existing_client_leads_to_its_server_and_database() {
    let space = namespace();
    let client = redis::Client::open(format!("{}/4", SERVER.url())).unwrap();
    works(RedisBackend::builder(RedisDriver::Smol).client(&client).namespace(&space));
    let mut raw = SERVER.client().unwrap();
    raw.command(&["SELECT", "4"]).unwrap();
    let name = format!("{space}:{}", key(1));
    assert_eq!(raw.command(&["EXISTS", &name]).unwrap(), tierkeep_test_servers::Reply::Integer(1));
}

#[test]
fn connecting_on_open_fails_where_nobody_answers() {
    let server = RedisServer::start().unwrap();
    let world = World::on(&server, |builder| builder.connect_on_open(true));
    assert_eq!(world.redis.stats().state, ConnectionState::Connected);
    server.kill().unwrap();
    let redis = builder(&server, "n").connect_on_open(true).build().unwrap();
    let context = tierkeep::backend::OpenContext::new(world.runtime.clone());
    assert!(smol::block_on(redis.open(&context)).is_err());
}
