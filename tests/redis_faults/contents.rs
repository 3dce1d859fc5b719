//! What others put under our keys.

use tierkeep_test_servers::{RedisServer, Reply};

use super::host::on_every_runtime;
use super::scenario::Scenario;
use super::{backend, guarded};

const WRONG_TYPE: &str = "wrong type";

/// Warm, then `spoil` is done to every key of the cache, again and again under load; nobody cleans up afterwards.
fn spoiled(fault: &'static str, spoil: impl Fn(&RedisServer, &str, &[u8]) + Sync) {
    on_every_runtime(|host| {
        let server = guarded().start().unwrap();
        let mut scenario = Scenario::start(fault, host, backend(host, server.addr()));
        scenario.warm();
        for round in 1..=20 {
            spoil_all(&server, &spoil);
            scenario.broken(15 * round, |_| true);
        }
        spoil_all(&server, &spoil);
        scenario.healed();
        // A single server's MGET says of another type what it says of no value.
        let is_string = fault != WRONG_TYPE;
        assert_eq!(scenario.undecoded() > 0, is_string, "{fault}: whether it was read and counted");
        scenario.finish();
    });
}

fn spoil_all(server: &RedisServer, spoil: &impl Fn(&RedisServer, &str, &[u8])) {
    let Reply::Array(names) = server.command(&["KEYS", "faults:*:v1:*"]).unwrap() else { panic!("not keys") };
    assert!(!names.is_empty(), "nothing is there to be spoilt");
    let mut last = Vec::new();
    for name in names {
        let name = name.text();
        // Another key's value, or this one's where there is no other; not what was spoilt before.
        if let Ok(Reply::Bulk(value)) = server.command(&["GET", &name])
            && value.len() > 200
        {
            last = value;
        }
        spoil(server, &name, &last);
    }
}

fn put(server: &RedisServer, name: &str, value: &[u8]) {
    server.command(&[b"SET", name.as_bytes(), value]).unwrap();
}

#[test]
fn another_type() {
    spoiled(WRONG_TYPE, |server, name, _| {
        // In one step: the load writes the key meanwhile.
        let script = "redis.call('DEL', KEYS[1]) redis.call('RPUSH', KEYS[1], 'a list')";
        server.command(&["EVAL", script, "1", name]).unwrap();
    });
}

#[test]
fn foreign_bytes() {
    spoiled("foreign bytes", |server, name, _| {
        put(server, name, b"\xff\x00 not a frame at all, but long enough to be one")
    });
}

#[test]
fn nothing_at_all() {
    spoiled("empty strings", |server, name, _| put(server, name, b""));
}

#[test]
fn a_frame_cut_short() {
    spoiled("truncated frames", |server, name, frame| put(server, name, &frame[..frame.len() / 2]));
}

#[test]
fn a_frame_of_another_key() {
    let last = std::sync::Mutex::new(std::collections::HashMap::<u16, Vec<u8>>::new());
    spoiled("another key's frame", |server, name, frame| {
        // Each server has its own keys; the frame of the key before.
        let before = last.lock().unwrap().insert(server.port(), frame.to_vec());
        if let Some(before) = before {
            put(server, name, &before);
        }
    });
}

/// As of a damaged header: a stamp that no clock will reach must not keep the key from being written for ever.
#[test]
fn a_frame_from_the_far_future() {
    spoiled("a stamp of the far future", |server, name, frame| {
        let mut frame = frame.to_vec();
        if let Some(stamp) = frame.get_mut(6..14) {
            stamp.copy_from_slice(&u64::MAX.to_le_bytes());
        }
        put(server, name, &frame);
    });
}
