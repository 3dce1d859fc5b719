//! One `redis-server`.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::await_until;
use crate::certificates::Certificates;
use crate::ports::Port;
use crate::process::Process;
use crate::resp::{Client, Reply};

/// Who this crate is to its servers, whatever users a test gives them.
const HARNESS: &str = "tierkeep-harness";

/// How a server is to be configured; [`start`](Self::start) starts it.
#[derive(Debug, Clone, Default)]
#[must_use = "a builder starts nothing until `start`"]
pub struct RedisServerBuilder {
    port: Option<u16>,
    lines: Vec<String>,
    tls: Option<Certificates>,
    requirepass: Option<String>,
    sentinel: bool,
}

impl RedisServerBuilder {
    /// Listens here; default: a free port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// A line of `redis.conf`; later lines win. Values with spaces are to be quoted.
    pub fn config(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// The default user's password.
    pub fn requirepass(mut self, password: impl Into<String>) -> Self {
        self.requirepass = Some(password.into());
        self
    }

    /// A user and the rules of `ACL SETUSER`, such as `on >password ~app:* &* +@all`.
    pub fn user(self, name: &str, rules: &str) -> Self {
        self.config(format!("user {name} {rules}"))
    }

    /// Listens with TLS only, and shows this certificate; clients need none.
    pub fn tls(mut self, certificates: &Certificates) -> Self {
        self.tls = Some(certificates.clone());
        self
    }

    /// How many bytes it may hold, and what it does at the limit, such as `noeviction` or `allkeys-lru`.
    pub fn maxmemory(self, bytes: u64, policy: &str) -> Self {
        self.config(format!("maxmemory {bytes}")).config(format!("maxmemory-policy {policy}"))
    }

    /// Keeps its data over a restart, each write synced; default: keeps nothing.
    pub fn appendonly(self) -> Self {
        self.config("appendonly yes").config("appendfsync always")
    }

    /// Is another server's replica.
    pub fn replica_of(self, primary: &RedisServer) -> Self {
        self.config(format!("replicaof 127.0.0.1 {}", primary.port()))
    }

    /// Is a node of a cluster.
    pub(crate) fn cluster_node(self) -> Self {
        self.config("cluster-enabled yes").config("cluster-node-timeout 5000")
    }

    /// Is a sentinel, which watches what it is told to with `SENTINEL MONITOR`.
    pub fn sentinel(mut self) -> Self {
        self.sentinel = true;
        self
    }

    /// Starts it, and returns once it answers `PING`.
    ///
    /// # Errors
    /// If `redis-server` is missing, refuses its configuration (with the end of its log), or does not answer in three minutes.
    pub fn start(self) -> io::Result<RedisServer> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let port = self.port.map_or_else(Port::free, Port::take)?;
            let server = RedisServer::create(self.clone(), port)?;
            match server.restart() {
                Ok(()) => return Ok(server),
                // Somebody else was faster to listen on the port that was free.
                Err(error) if self.port.is_none() && attempts < 5 && in_use(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn text(&self, dir: &Path, port: u16) -> String {
        let mut text = String::new();
        let plain = if self.tls.is_some() { 0 } else { port };
        let _ = writeln!(
            text,
            "bind 127.0.0.1\nport {plain}\nprotected-mode no\nunixsocket {dir}/redis.sock",
            dir = dir.display()
        );
        let _ = writeln!(text, "dir {dir}\nlogfile {dir}/redis.log", dir = dir.display());
        let _ = writeln!(text, "user {HARNESS} on >{HARNESS} ~* &* +@all");
        if !self.sentinel {
            let _ = writeln!(
                text,
                "save \"\"\nmasteruser {HARNESS}\nmasterauth {HARNESS}\nrepl-diskless-sync-delay 0"
            );
        }
        if let Some(tls) = &self.tls {
            let (certificate, key, authority) = (tls.certificate(), tls.key(), tls.authority());
            let _ = writeln!(
                text,
                "tls-port {port}\ntls-auth-clients no\ntls-replication yes\ntls-cluster yes\ntls-cert-file {}",
                certificate.display()
            );
            let _ =
                writeln!(text, "tls-key-file {}\ntls-ca-cert-file {}", key.display(), authority.display());
        }
        if let Some(password) = &self.requirepass {
            let _ = writeln!(text, "requirepass \"{password}\"");
        }
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

fn in_use(error: &io::Error) -> bool {
    error.to_string().contains("already in use")
}

/// A `redis-server` process on 127.0.0.1, in a directory of its own; killed when dropped. All its methods block, for
/// milliseconds; those that need an answer give up after some seconds.
#[derive(Debug)]
pub struct RedisServer {
    process: Mutex<Option<Process>>,
    dir: TempDir,
    port: Port,
    builder: RedisServerBuilder,
}

impl RedisServer {
    /// Starts one that listens on a free port, without a password, and keeps nothing on disk.
    ///
    /// # Errors
    /// As of [`RedisServerBuilder::start`].
    pub fn start() -> io::Result<Self> {
        Self::builder().start()
    }

    /// For one that needs more.
    pub fn builder() -> RedisServerBuilder {
        RedisServerBuilder::default()
    }

    fn create(builder: RedisServerBuilder, port: Port) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tierkeep-redis-").tempdir()?;
        std::fs::write(dir.path().join("redis.conf"), builder.text(dir.path(), port.number))?;
        Ok(Self { process: Mutex::new(None), dir, port, builder })
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port()).into()
    }

    /// `redis://127.0.0.1:port`, or `rediss://` with TLS; without a user or password.
    pub fn url(&self) -> String {
        let scheme = if self.builder.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{}", self.addr())
    }

    /// Its Unix socket.
    pub fn unix_socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Process::id)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("redis.log")).unwrap_or_default()
    }

    /// A connection with all rights, through its Unix socket.
    ///
    /// # Errors
    /// If it does not run or is paused.
    pub fn client(&self) -> io::Result<Client> {
        let mut client = Client::unix(&self.unix_socket())?;
        client.command(&["AUTH", HARNESS, HARNESS])?.ok()?;
        Ok(client)
    }

    /// Sends one command, with all rights.
    ///
    /// # Errors
    /// If it does not run, is paused, or answers with an error.
    pub fn command<A: AsRef<[u8]>>(&self, args: &[A]) -> io::Result<Reply> {
        self.client()?.command(args)?.ok()
    }

    /// A field of `INFO`.
    ///
    /// # Errors
    /// If it does not answer or has no such field.
    pub fn info(&self, field: &str) -> io::Result<String> {
        let text = self.command(&["INFO", "everything"])?.text();
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.map(str::to_owned).ok_or_else(|| io::Error::other(format!("INFO has no field {field}")))
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// If it cannot be signalled or does not end in three minutes.
    pub fn stop(&self) -> io::Result<()> {
        let mut slot = self.process();
        if let Some(process) = slot.as_mut() {
            process.signal(Signal::TERM)?;
            process.signal(Signal::CONT)?; // else one that is paused would not hear it
            await_until("a stop", || Ok((!process.runs()?).then_some(())))?;
        }
        *slot = None;
        Ok(())
    }

    /// `kill -9`, paused or not; returns once the process is gone.
    ///
    /// # Errors
    /// None; a `Result` so that it reads as its siblings.
    pub fn kill(&self) -> io::Result<()> {
        *self.process() = None;
        Ok(())
    }

    /// Starts it again on its port, with the data that it kept (see [`RedisServerBuilder::appendonly`]); ends it first
    /// if it still runs.
    ///
    /// # Errors
    /// As of [`RedisServerBuilder::start`].
    pub fn restart(&self) -> io::Result<()> {
        self.launch()?;
        self.await_ready()
    }

    /// The same, but returns as soon as it answers at all: it may still be loading its data, and say so.
    ///
    /// # Errors
    /// As of [`RedisServerBuilder::start`].
    pub fn restart_loading(&self) -> io::Result<()> {
        self.launch()?;
        self.await_start(|_| true)
    }

    /// Waits until it has loaded its data.
    ///
    /// # Errors
    /// As of [`RedisServerBuilder::start`].
    pub fn await_ready(&self) -> io::Result<()> {
        self.await_start(|reply| reply == &Reply::Simple("PONG".into()))
    }

    fn launch(&self) -> io::Result<()> {
        self.stop()?;
        let started =
            Process::start(&self.dir.path().join("redis.conf"), self.dir.path(), self.builder.sentinel)?;
        *self.process() = Some(started);
        Ok(())
    }

    /// Waits for an answer to `PING` that will do.
    fn await_start(&self, will_do: impl Fn(&Reply) -> bool) -> io::Result<()> {
        let mut slot = self.process();
        let started = await_until("a start", || {
            if !slot.as_mut().map_or(Ok(false), Process::runs)? {
                return Ok(Some(false));
            }
            Ok(will_do(&self.client()?.command(&["PING"])?).then_some(true))
        })?;
        if started {
            return Ok(());
        }
        *slot = None;
        let log = self.log();
        let end: Vec<_> = log.lines().rev().take(5).collect();
        let end = end.into_iter().rev().collect::<Vec<_>>().join("\n");
        Err(io::Error::other(format!("redis-server ended at its start; its log says:\n{end}")))
    }

    /// Starts it again on its port without any data.
    ///
    /// # Errors
    /// As of [`RedisServerBuilder::start`].
    pub fn restart_empty(&self) -> io::Result<()> {
        self.stop()?;
        for name in ["appendonlydir", "dump.rdb"] {
            let path = self.dir.path().join(name);
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed
                .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
        }
        self.restart()
    }

    /// Makes it a primary, if it is a replica.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn promote(&self) -> io::Result<()> {
        self.command(&["REPLICAOF", "NO", "ONE"]).map(drop)
    }

    /// Makes it the replica of another server, and waits until it holds the same data.
    ///
    /// # Errors
    /// If it does not in three minutes.
    pub fn follow(&self, primary: &Self) -> io::Result<()> {
        self.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()])?;
        await_until("a replica's copy", || Ok((self.info("master_link_status")? == "up").then_some(())))
    }

    /// Hands its role to a replica of its own, as a planned failover does: no write is lost.
    ///
    /// # Errors
    /// If that takes more than three minutes.
    pub fn fail_over_to(&self, replica: &Self) -> io::Result<()> {
        let port = replica.port().to_string();
        await_until("the replica to be online", || {
            match self.command(&["FAILOVER", "TO", "127.0.0.1", &port]) {
                // It follows, but its first synchronisation is not over.
                Err(error) if error.to_string().contains("not online") => Ok(None),
                begun => begun.map(|_| Some(())),
            }
        })?;
        await_until("a failover", || {
            let done = replica.info("role")? == "master" && self.info("role")? == "slave";
            Ok(done.then_some(()))
        })
    }

    /// `SIGSTOP`: it accepts connections (the system does) and answers nothing, until [`resume`](Self::resume).
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// `SIGCONT`: goes on where it was paused.
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let slot = self.process();
        slot.as_ref().ok_or_else(|| io::Error::other("the server does not run"))?.signal(signal)
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user and password that all servers of this crate know.
    pub(crate) fn harness() -> (&'static str, &'static str) {
        (HARNESS, HARNESS)
    }
}
