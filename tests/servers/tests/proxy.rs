//! The proxy does to connections what its network says, and no more.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tierkeep_test_servers::{Client, FaultProxy, Network, RedisServer, Reply};

fn start() -> (RedisServer, FaultProxy) {
    let server = RedisServer::start().unwrap();
    server.command(&["SET", "key", &"v".repeat(1000)]).unwrap();
    let proxy = FaultProxy::to(server.addr()).unwrap();
    (server, proxy)
}

fn get(client: &mut Client) -> std::io::Result<Reply> {
    client.command(&["GET", "key"])
}

fn whole() -> Reply {
    Reply::Bulk(vec![b'v'; 1000])
}

#[test]
fn a_healthy_network_passes_all() {
    let (_server, proxy) = start();
    let mut client = Client::tcp(proxy.addr()).unwrap();
    assert_eq!(get(&mut client).unwrap(), whole());
    let counts = proxy.counts();
    assert_eq!((counts.connections, counts.commands, counts.replies), (1, 1, 1));
}

#[test]
fn a_connection_is_reset_mid_reply() {
    let (_server, proxy) = start();
    let mut client = Client::tcp(proxy.addr()).unwrap();
    assert_eq!(get(&mut client).unwrap(), whole());
    proxy.set(Network::ResetAfter(100));
    assert_eq!(get(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.set(Network::Healthy);
    assert_eq!(get(&mut Client::tcp(proxy.addr()).unwrap()).unwrap(), whole());
    assert_eq!(proxy.counts().resets, 1);
}

#[test]
fn a_host_that_is_back_resets_what_it_does_not_know() {
    let (_server, proxy) = start();
    let mut old = Client::tcp(proxy.addr()).unwrap();
    proxy.set(Network::Blackhole);
    std::thread::scope(|threads| {
        let answer = threads.spawn(|| get(&mut old));
        while proxy.counts().lost_bytes == 0 {
            std::thread::yield_now();
        }
        proxy.set(Network::Healthy);
        assert_eq!(answer.join().unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
    assert_eq!(get(&mut Client::tcp(proxy.addr()).unwrap()).unwrap(), whole());
}

#[test]
fn a_stranded_connection_stays_silent_and_new_ones_work() {
    let (_server, proxy) = start();
    let mut old = Client::tcp_within(proxy.addr(), Duration::from_secs(5)).unwrap();
    assert_eq!(get(&mut old).unwrap(), whole());
    proxy.strand();
    assert_eq!(get(&mut Client::tcp(proxy.addr()).unwrap()).unwrap(), whole());
    let silent = get(&mut old).unwrap_err();
    assert!(matches!(silent.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silent}");
    assert!(proxy.counts().lost_bytes > 0);
}

#[test]
fn nobody_listens_where_connections_are_refused() {
    let (_server, proxy) = start();
    let mut open = Client::tcp(proxy.addr()).unwrap();
    assert_eq!(get(&mut open).unwrap(), whole());
    proxy.set(Network::Refuse);
    assert_eq!(Client::tcp(proxy.addr()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(get(&mut open).is_err());
    proxy.set(Network::Healthy);
    assert_eq!(get(&mut Client::tcp(proxy.addr()).unwrap()).unwrap(), whole());
}

#[test]
fn what_a_partition_held_comes_when_it_heals() {
    let (_server, proxy) = start();
    let mut client = Client::tcp(proxy.addr()).unwrap();
    proxy.set(Network::Partition);
    std::thread::scope(|threads| {
        let answer = threads.spawn(|| get(&mut client));
        while proxy.counts().held == 0 {
            std::thread::yield_now();
        }
        proxy.set(Network::Healthy);
        assert_eq!(answer.join().unwrap().unwrap(), whole());
    });
}

#[test]
fn a_write_that_was_given_up_arrives_late() {
    let (server, proxy) = start();
    let mut old = Client::tcp(proxy.addr()).unwrap();
    assert_eq!(get(&mut old).unwrap(), whole());
    proxy.hold();
    std::thread::scope(|threads| {
        threads.spawn(|| old.command(&["SET", "key", "old"]));
        while proxy.counts().held == 0 {
            std::thread::yield_now();
        }
        Client::tcp(proxy.addr()).unwrap().command(&["SET", "key", "new"]).unwrap();
        assert_eq!(server.command(&["GET", "key"]).unwrap().text(), "new");
        proxy.release();
    });
    assert_eq!(server.command(&["GET", "key"]).unwrap().text(), "old");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the network's time is real")]
fn replies_come_late() {
    let (_server, proxy) = start();
    let mut client = Client::tcp(proxy.addr()).unwrap();
    proxy.set(Network::Delay(Duration::from_millis(30)));
    let began = Instant::now();
    assert_eq!(get(&mut client).unwrap(), whole());
    assert!(began.elapsed() >= Duration::from_millis(30));
    assert_eq!(proxy.counts().delayed, 1);
}

#[test]
fn values_are_corrupted_and_protocol_is_not() {
    let (_server, proxy) = start();
    let mut client = Client::tcp(proxy.addr()).unwrap();
    proxy.set(Network::Corrupt(16));
    let Reply::Bulk(bytes) = get(&mut client).unwrap() else { panic!("no value") };
    assert_eq!(bytes.iter().filter(|byte| **byte != b'v').count(), 1);
    assert_eq!(client.command(&["PING"]).unwrap(), Reply::Simple("PONG".into()));
    proxy.set(Network::Garble);
    assert!(client.command(&["PING"]).is_err());
}

#[test]
fn chosen_commands_are_answered_and_never_reach_the_server() {
    let (server, proxy) = start();
    let mut client = Client::tcp(proxy.addr()).unwrap();
    proxy.set(Network::read_only());
    let refused = client.command(&["set", "key", "other"]).unwrap();
    assert!(refused.text().starts_with("READONLY"), "{refused:?}");
    assert_eq!(get(&mut client).unwrap(), whole());
    proxy.set(Network::loading());
    assert!(get(&mut client).unwrap().text().starts_with("LOADING"));
    proxy.set(Network::Healthy);
    assert_eq!(server.command(&["GET", "key"]).unwrap(), whole());
    assert_eq!(proxy.counts().answered, 2);
}
