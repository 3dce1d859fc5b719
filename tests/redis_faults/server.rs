//! Servers that die, pause, fill up, fail over or know another password.

use tierkeep_test_servers::FaultProxy;

use super::host::on_every_runtime;
use super::scenario::{SECRET, Scenario};
use super::{backend, guarded, redis, url};

#[test]
fn killed_and_started_again() {
    on_every_runtime(|host| {
        // With its data, so that old values come back too.
        let server = guarded().appendonly().start().unwrap();
        let mut scenario = Scenario::start("kill -9 and restart", host, backend(host, server.addr()));
        scenario.warm();
        for _ in 0..2 {
            server.kill().unwrap();
            scenario.broken(300, |during| during.degraded > 0);
            server.restart().unwrap();
        }
        scenario.healed();
        scenario.finish();
    });
}

#[test]
fn killed_and_started_empty() {
    on_every_runtime(|host| {
        let server = guarded().start().unwrap();
        let mut scenario = Scenario::start("kill -9 and start empty", host, backend(host, server.addr()));
        scenario.warm();
        server.kill().unwrap();
        scenario.broken(300, |during| during.degraded > 0);
        server.restart_empty().unwrap();
        scenario.healed();
        scenario.finish();
    });
}

/// Started again with so much on disk that it takes some seconds to be of use, and says so until then.
#[test]
fn loading_its_data() {
    const FOREIGN: &str = "for i = 1, 600 do redis.call('SET', 'foreign:' .. i, string.rep('x', 200)) end";
    on_every_runtime(|host| {
        // 5 ms a key, with an ear for clients after every KiB.
        let slowly = ["key-load-delay 5000", "loading-process-events-interval-bytes 1024"];
        let server = slowly.iter().fold(guarded(), |server, line| server.config(*line)).start().unwrap();
        let mut scenario = Scenario::start("-LOADING after a restart", host, backend(host, server.addr()));
        scenario.warm();
        server.command(&["EVAL", FOREIGN, "0"]).unwrap();
        server.command(&["SAVE"]).unwrap();
        server.kill().unwrap();
        server.restart_loading().unwrap();
        scenario.broken(50, |during| during.degraded > 0 && server.info("loading").unwrap() == "1");
        server.await_ready().unwrap();
        scenario.healed();
        scenario.finish();
    });
}

#[test]
fn absent_when_the_cache_starts() {
    on_every_runtime(|host| {
        let server = guarded().start().unwrap();
        server.kill().unwrap();
        let mut scenario = Scenario::start("not there at the start", host, backend(host, server.addr()));
        scenario.broken(300, |during| during.degraded > 0 && during.redis_hits == 0);
        server.restart().unwrap();
        scenario.healed();
        scenario.finish();
    });
}

#[test]
fn paused_and_resumed() {
    on_every_runtime(|host| {
        let server = guarded().start().unwrap();
        let mut scenario = Scenario::start("SIGSTOP and SIGCONT", host, backend(host, server.addr()));
        scenario.warm();
        for _ in 0..3 {
            server.pause().unwrap();
            scenario.broken(150, |during| during.degraded > 0);
            server.resume().unwrap();
        }
        scenario.healed();
        scenario.finish();
    });
}

#[test]
fn out_of_memory() {
    on_every_runtime(|host| {
        let server = guarded().start().unwrap();
        let mut scenario =
            Scenario::start("-OOM (maxmemory, noeviction)", host, backend(host, server.addr()));
        scenario.warm();
        server.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
        scenario.broken(300, |during| during.degraded > 0);
        server.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
        scenario.healed();
        scenario.finish();
    });
}

/// The address stays and leads to the new primary, as behind a name or a balancer; open connections still lead to the
/// old one, now a replica.
#[test]
fn failed_over_to_a_replica() {
    on_every_runtime(|host| {
        let (first, second) = (guarded().start().unwrap(), guarded().start().unwrap());
        second.follow(&first).unwrap();
        let proxy = FaultProxy::to(first.addr()).unwrap();
        let mut scenario = Scenario::start("-READONLY after failover", host, backend(host, proxy.addr()));
        scenario.warm();
        // Hands over without losing a write: what an asynchronous replica loses, no client can know.
        first.fail_over_to(&second).unwrap();
        scenario.broken(100, |during| during.degraded > 0);
        proxy.retarget(second.addr());
        scenario.healed();
        scenario.finish();
    });
}

/// The same with nothing but sets: no read and no removal tells that the connection leads to a replica.
#[test]
fn failed_over_to_a_replica_while_all_that_happens_is_sets() {
    on_every_runtime(|host| {
        let (first, second) = (guarded().start().unwrap(), guarded().start().unwrap());
        second.follow(&first).unwrap();
        let proxy = FaultProxy::to(first.addr()).unwrap();
        let backend = backend(host, proxy.addr());
        let mut scenario = Scenario::start("-READONLY, sets only", host, backend);
        scenario.warm();
        scenario.only_set();
        first.fail_over_to(&second).unwrap();
        scenario.broken(100, |_| first.info("errorstat_READONLY").is_ok());
        proxy.retarget(second.addr());
        scenario.healed_by_sets();
        scenario.finish();
    });
}

#[test]
fn another_password() {
    on_every_runtime(|host| {
        let server = guarded().start().unwrap();
        let mut scenario = Scenario::start("wrong password", host, backend(host, server.addr()));
        scenario.warm();
        server.command(&["CONFIG", "SET", "requirepass", "changed"]).unwrap();
        // Connections that are logged in stay so.
        server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
        scenario.broken(300, |during| during.degraded > 0);
        server.command(&["CONFIG", "SET", "requirepass", SECRET]).unwrap();
        scenario.healed();
        scenario.finish();
    });
}

/// A user without rights on the cache's keys, until it gets them.
#[test]
fn a_user_without_rights() {
    on_every_runtime(|host| {
        let server = guarded().start().unwrap();
        server
            .command(&["ACL", "SETUSER", "app", "on", &format!(">{SECRET}"), "~other:*", "&*", "+@all"])
            .unwrap();
        let url = format!("redis://app:{SECRET}@{}", server.addr());
        let mut scenario = Scenario::start("-NOPERM", host, redis(host).url(&url).build().unwrap());
        scenario.broken(200, |during| during.degraded > 0 && during.redis_hits == 0);
        server.command(&["ACL", "SETUSER", "app", "~*"]).unwrap();
        scenario.healed();
        scenario.finish();
    });
}

/// Never healed: names are the system's.
#[test]
fn a_name_that_does_not_resolve() {
    on_every_runtime(|host| {
        let redis = redis(host).url(&url("no-such-host.invalid")).build().unwrap();
        let mut scenario = Scenario::start("a name that does not resolve", host, redis);
        scenario.broken(400, |during| during.degraded > 0 && during.redis_hits == 0);
        scenario.finish();
    });
}
