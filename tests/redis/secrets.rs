//! Nothing that a backend says of itself or its failures tells a password.

use tierkeep::backend::{Credentials, RedisBackend, RedisDriver};
use tierkeep::{Backend, Cache, ErrorKind};
use tierkeep_smol::SmolRuntime;
use tierkeep_test_servers::RedisServer;

use crate::support::key;

const SECRET: &str = "correct-horse-battery";

#[test]
fn neither_errors_nor_debug_nor_inspect_tell_them() {
    let server = RedisServer::builder()
        .user("cache", &format!("on >{SECRET} ~* +@all"))
        // A server that repeats what it does not understand.
        .config("rename-command AUTH \"\"")
        .config("rename-command HELLO \"\"")
        .start();
    // Its harness may need AUTH itself: then any server that refuses the login will do.
    let server = server.or_else(|_| RedisServer::start()).unwrap();
    let url = format!("redis://cache:{SECRET}@127.0.0.1:{}", server.port());
    let builder = RedisBackend::builder(RedisDriver::Smol).url(&url).namespace("n");
    let mut said = format!("{builder:?} {:?}", Credentials::user("cache", SECRET));
    let redis = builder.build().unwrap();
    smol::block_on(async {
        let cache = Cache::builder(SmolRuntime::new()).tier(redis.clone()).build().await.unwrap();
        let region = cache.region::<u32, u32>("r").no_expiry().build().unwrap();
        let lookup = region.try_get(&1).await.unwrap();
        assert!(!lookup.degraded.is_empty(), "the login is refused");
        said += &format!("{lookup:?}");
        let refused = redis.read(&key(1)).await.unwrap_err();
        assert!(refused.message().contains("cannot connect to Redis at 127.0.0.1"), "{refused}");
        said += &format!("{refused} {refused:?}");
        said += &format!("{redis:?} {:?} {:?}", redis.stats(), cache.inspect());
        said += &serde_json::to_string(&redis.stats()).unwrap();
    });
    assert!(!said.contains(SECRET), "{said}");
}

#[test]
fn a_url_that_does_not_parse_is_not_repeated() {
    let url = format!("redis//:{SECRET}@host");
    let error = RedisBackend::builder(RedisDriver::Smol).url(&url).namespace("n").build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!format!("{error:?} {error}").contains(SECRET), "{error:?}");
}

#[test]
fn a_namespace_is_mandatory() {
    let error = RedisBackend::builder(RedisDriver::Smol).url("redis://127.0.0.1").build().unwrap_err();
    assert!(error.message().contains("namespace"), "{error}");
}
