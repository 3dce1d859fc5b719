//! A server starts, stops, dies and comes back as a test asks, and never outlives it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use rustix::process::{Pid, test_kill_process};
use tierkeep_test_servers::{Certificates, Client, RedisSentinel, RedisServer, Reply};

#[test]
fn it_answers_on_its_port_and_its_socket() {
    let server = RedisServer::start().unwrap();
    let mut client = Client::tcp(server.addr()).unwrap();
    assert_eq!(client.command(&["SET", "key", "value"]).unwrap(), Reply::Simple("OK".into()));
    assert_eq!(server.command(&["GET", "key"]).unwrap(), Reply::Bulk(b"value".to_vec()));
}

#[test]
fn data_survives_a_kill_where_it_is_kept() {
    for kept in [true, false] {
        let builder = RedisServer::builder();
        let server = if kept { builder.appendonly() } else { builder }.start().unwrap();
        server.command(&["SET", "key", "value"]).unwrap();
        let (port, pid) = (server.port(), server.pid());
        server.kill().unwrap();
        assert!(Client::tcp(server.addr()).is_err());
        server.restart().unwrap();
        assert_eq!(server.port(), port);
        assert_ne!(server.pid(), pid);
        let expected = if kept { Reply::Bulk(b"value".to_vec()) } else { Reply::Null };
        assert_eq!(server.command(&["GET", "key"]).unwrap(), expected);
        server.restart_empty().unwrap();
        assert_eq!(server.command(&["GET", "key"]).unwrap(), Reply::Null);
    }
}

#[test]
fn a_paused_server_answers_once_it_is_resumed() {
    let server = RedisServer::start().unwrap();
    let mut client = server.client().unwrap();
    server.pause().unwrap();
    std::thread::scope(|threads| {
        let answer = threads.spawn(|| client.command(&["PING"]));
        server.resume().unwrap();
        assert_eq!(answer.join().unwrap().unwrap(), Reply::Simple("PONG".into()));
    });
    // A paused one can still be ended.
    server.pause().unwrap();
    server.stop().unwrap();
    assert_eq!(server.pid(), None);
}

#[test]
fn passwords_and_users_are_asked_for() {
    let server =
        RedisServer::builder().requirepass("secret").user("app", "on >word ~app:* &* +@all").start().unwrap();
    let mut client = Client::tcp(server.addr()).unwrap();
    assert!(client.command(&["GET", "key"]).unwrap().text().starts_with("NOAUTH"));
    client.command(&["AUTH", "secret"]).unwrap().ok().unwrap();
    client.command(&["GET", "key"]).unwrap().ok().unwrap();
    client.command(&["AUTH", "app", "word"]).unwrap().ok().unwrap();
    assert!(client.command(&["GET", "key"]).unwrap().text().starts_with("NOPERM"));
}

#[test]
fn a_full_server_refuses_writes() {
    let server = RedisServer::builder().maxmemory(1, "noeviction").start().unwrap();
    let error = server.command(&["SET", "key", "value"]).unwrap_err();
    assert!(error.to_string().contains("OOM"), "{error}");
}

#[test]
fn a_bad_configuration_is_told_with_the_log() {
    let error = RedisServer::builder().config("tls-port 1").start().unwrap_err();
    assert!(error.to_string().contains("TLS"), "{error}");
}

#[test]
fn two_servers_never_share_a_port() {
    let server = RedisServer::start().unwrap();
    server.kill().unwrap();
    let error = RedisServer::builder().port(server.port()).start().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn roles_are_exchanged() {
    let (first, second) = (RedisServer::start().unwrap(), RedisServer::start().unwrap());
    first.command(&["SET", "key", "value"]).unwrap();
    second.follow(&first).unwrap();
    assert_eq!(second.command(&["GET", "key"]).unwrap().text(), "value");
    second.promote().unwrap();
    first.follow(&second).unwrap();
    let error = first.command(&["SET", "key", "other"]).unwrap_err();
    assert!(error.to_string().contains("READONLY"), "{error}");
}

#[test]
fn with_tls_a_plain_connection_gets_nowhere() {
    let server = RedisServer::builder().tls(&Certificates::new().unwrap()).start().unwrap();
    assert!(server.url().starts_with("rediss://"));
    assert!(Client::tcp(server.addr()).unwrap().command(&["PING"]).is_err());
    assert_eq!(server.command(&["PING"]).unwrap(), Reply::Simple("PONG".into()));
}

/// Runs itself in a process that is killed as no destructor would notice.
#[test]
fn no_server_outlives_a_killed_test() {
    const CHILD: &str = "TIERKEEP_SERVERS_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let server = RedisServer::start().unwrap();
        server.pause().unwrap(); // even so
        println!("pid {}", server.pid().unwrap());
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["no_server_outlives_a_killed_test", "--exact", "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let pid = lines.find_map(|line| line.unwrap().split_once("pid ")?.1.parse().ok()).unwrap();
    let pid = Pid::from_raw(pid).unwrap();
    assert!(test_kill_process(pid).is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
    // The end of this loop is the assertion; whoever adopts the orphan reaps it.
    while test_kill_process(pid).is_ok() && !is_zombie(pid) {
        std::thread::yield_now();
    }
}

fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn a_sentinel_promotes_the_replica() {
    let sentinel = RedisSentinel::start().unwrap();
    assert_eq!(sentinel.primary().unwrap(), 0);
    sentinel.fail_over().unwrap();
    assert_eq!(sentinel.primary().unwrap(), 1);
    sentinel.servers()[1].command(&["SET", "key", "value"]).unwrap();
}
