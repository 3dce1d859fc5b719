//! A cluster whose slots move and whose masters change, and a primary that sentinels replace.

use tierkeep::backend::Credentials;
use tierkeep_test_servers::{RedisCluster, RedisSentinel, RedisServer};

use super::host::{Host, on_every_runtime};
use super::scenario::{SECRET, Scenario};
use super::{guarded, redis, url};

fn start(fault: &'static str, host: &Host<'_>, then: impl FnOnce(&RedisCluster, &mut Scenario<'_>)) {
    let cluster = RedisCluster::start_with(guarded()).unwrap();
    let urls: Vec<_> = cluster.addrs().into_iter().take(2).map(url).collect();
    let mut scenario = Scenario::start(fault, host, redis(host).cluster(&urls).build().unwrap());
    scenario.warm();
    then(&cluster, &mut scenario);
    scenario.finish();
}

/// How often the nodes have answered so.
fn answered(cluster: &RedisCluster, error: &str) -> u64 {
    let field = format!("errorstat_{error}");
    let count = |node: &RedisServer| node.info(&field).ok()?.strip_prefix("count=")?.parse::<u64>().ok();
    cluster.nodes().iter().filter_map(count).sum()
}

/// The slots that the cache's keys are in.
fn slots(cluster: &RedisCluster) -> Vec<u16> {
    let names = cluster.nodes()[..3].iter().map(|node| node.command(&["KEYS", "*"]).unwrap().text());
    let mut slots: Vec<_> = names
        .flat_map(|names| names.lines().map(|name| cluster.slot(name).unwrap()).collect::<Vec<_>>())
        .collect();
    slots.sort_unstable();
    slots.dedup();
    slots
}

#[test]
fn slots_that_move_under_load() {
    on_every_runtime(|host| {
        start("-MOVED/-ASK (live reshard)", host, |cluster, scenario| {
            let mut calls = 0;
            for slot in slots(cluster).into_iter().take(16) {
                let to = (cluster.owner(slot).unwrap() + 1) % 3;
                let migration = cluster.begin_migration(slot, to).unwrap();
                cluster.move_keys(migration, 1).unwrap();
                calls += 25;
                scenario.broken(calls, |_| true);
                cluster.finish_migration(migration).unwrap();
            }
            scenario.broken(calls, |during| during.redis_hits > 0 && answered(cluster, "MOVED") > 0);
            assert!(answered(cluster, "ASK") > 0, "no key was asked for while its slot moved");
            scenario.healed();
        });
    });
}

#[test]
fn a_master_that_hands_over_to_its_replica() {
    on_every_runtime(|host| {
        start("cluster failover", host, |cluster, scenario| {
            cluster.fail_over(3).unwrap();
            cluster.fail_over(4).unwrap();
            scenario.broken(200, |_| answered(cluster, "MOVED") > 0);
            scenario.healed();
        });
    });
}

#[test]
fn slots_that_nobody_has_for_a_while() {
    on_every_runtime(|host| {
        start("slots without a master", host, |cluster, scenario| {
            let master = &cluster.nodes()[0];
            master.command(&["CLUSTER", "DELSLOTSRANGE", "0", "5460"]).unwrap();
            scenario.broken(300, |during| during.degraded > 0);
            master.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "5460"]).unwrap();
            scenario.healed();
        });
    });
}

#[test]
fn a_master_that_dies() {
    on_every_runtime(|host| {
        start("cluster master killed", host, |cluster, scenario| {
            // What an asynchronous replica has not got when its master dies, no client can know.
            scenario.without_writes(|| {
                let master = &cluster.nodes()[0];
                master.command(&["WAIT", "1", "5000"]).unwrap();
                master.kill().unwrap();
            });
            scenario.broken(200, |during| during.degraded > 0);
            // The cluster heals itself: the replica takes over after the node timeout.
            scenario.healed();
        });
    });
}

#[test]
fn a_primary_that_sentinels_replace() {
    on_every_runtime(|host| {
        let sentinel = RedisSentinel::start().unwrap();
        for server in sentinel.servers() {
            server.command(&["CONFIG", "SET", "requirepass", SECRET]).unwrap();
        }
        let builder = redis(host).sentinels([sentinel.sentinel().url()], sentinel.name());
        let backend = builder.credentials(Credentials::password(SECRET)).build().unwrap();
        let mut scenario = Scenario::start("sentinel failover", host, backend);
        scenario.warm();
        scenario.without_writes(|| {
            let primary = &sentinel.servers()[0];
            primary.command(&["WAIT", "1", "5000"]).unwrap();
            primary.kill().unwrap();
        });
        scenario.broken(100, |during| during.degraded > 0);
        sentinel.fail_over().unwrap();
        scenario.healed();
        scenario.finish();
    });
}
