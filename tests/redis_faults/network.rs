//! The way to Redis: slow, cut, silent, or answering in its place.

use std::time::Duration;

use tierkeep_test_servers::{FaultProxy, Network, ProxyCounts};

use super::host::on_every_runtime;
use super::load::READ_DEADLINE;
use super::scenario::Scenario;
use super::tally::Counts;
use super::{backend, guarded};

/// Warm, then under this network until `calls` more are answered and it has `bitten`, then healthy again.
fn under(
    fault: &'static str,
    network: &Network,
    calls: u64,
    bitten: impl Fn(Counts, ProxyCounts) -> bool + Sync,
) {
    on_every_runtime(|host| {
        let server = guarded().start().unwrap();
        let proxy = FaultProxy::to(server.addr()).unwrap();
        let mut scenario = Scenario::start(fault, host, backend(host, proxy.addr()));
        scenario.warm();
        proxy.set(network.clone());
        scenario.broken(calls, |during| bitten(during, proxy.counts()));
        proxy.set(Network::Healthy);
        scenario.healed();
        scenario.finish();
    });
}

#[test]
fn reset_in_the_middle_of_a_reply() {
    // Less than the reply to one read of a value; every connection gets further than its handshake.
    under("reset mid-reply", &Network::ResetAfter(150), 300, |_, proxy| proxy.resets >= 3);
}

#[test]
fn half_open_connections() {
    on_every_runtime(|host| {
        let server = guarded().start().unwrap();
        let proxy = FaultProxy::to(server.addr()).unwrap();
        let mut scenario = Scenario::start("half-open connection", host, backend(host, proxy.addr()));
        scenario.warm();
        proxy.strand();
        scenario.broken(50, |during| during.degraded > 0 && proxy.counts().lost_bytes > 0);
        // Nothing heals them: the client has to give them up by itself.
        scenario.healed();
        scenario.finish();
    });
}

#[test]
fn a_host_that_is_gone() {
    under("black hole", &Network::Blackhole, 300, |during, proxy| {
        during.degraded > 0 && proxy.lost_bytes > 0
    });
}

#[test]
fn a_partition_whose_bytes_arrive_late() {
    under("partition", &Network::Partition, 300, |during, proxy| during.degraded > 0 && proxy.held > 0);
}

/// Writes that were given up reach the server after newer ones: the comparison of stamps has to turn them down.
#[test]
fn writes_that_arrive_after_newer_ones() {
    on_every_runtime(|host| {
        let server = guarded().start().unwrap();
        let proxy = FaultProxy::to(server.addr()).unwrap();
        let mut scenario = Scenario::start("late writes", host, backend(host, proxy.addr()));
        scenario.warm();
        let mut calls = 0;
        for round in 1..=5 {
            proxy.hold();
            // Until new connections have served for a while.
            calls += 150;
            scenario.broken(calls, |during| during.redis_hits > 15 * round && proxy.counts().held >= round);
            proxy.release();
            scenario.broken(calls + 50, |_| true);
        }
        scenario.healed();
        scenario.finish();
    });
}

#[test]
fn nobody_listens() {
    under("connection refused", &Network::Refuse, 300, |during, _| during.degraded > 0);
}

#[test]
fn slow_replies_within_the_deadline() {
    let slow = Network::Delay(Duration::from_millis(20));
    under("slow replies (20 ms)", &slow, 200, |during, proxy| during.redis_hits > 0 && proxy.delayed > 20);
}

#[test]
fn slow_replies_past_the_deadline() {
    let slow = Network::Delay(READ_DEADLINE * 3);
    under("slow replies (300 ms)", &slow, 200, |during, proxy| during.degraded > 0 && proxy.delayed > 0);
}

#[test]
fn loading() {
    under("-LOADING", &Network::loading(), 300, |during, proxy| during.degraded > 0 && proxy.answered > 0);
}

#[test]
fn read_only() {
    under("-READONLY", &Network::read_only(), 300, |during, proxy| during.degraded > 0 && proxy.answered > 0);
}

#[test]
fn out_of_memory_is_answered() {
    under("-OOM", &Network::out_of_memory(), 300, |during, proxy| during.degraded > 0 && proxy.answered > 0);
}

#[test]
fn corrupted_values() {
    // Frames of values are over 200 bytes; the protocol and what scripts answer stay whole.
    under("corrupted bytes", &Network::Corrupt(100), 300, |_, proxy| proxy.corrupted > 20);
}

#[test]
fn bytes_that_are_no_protocol() {
    under("garbled protocol", &Network::Garble, 300, |during, proxy| {
        during.degraded > 0 && proxy.corrupted > 2
    });
}
