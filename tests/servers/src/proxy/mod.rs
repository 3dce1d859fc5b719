//! A network that fails: a proxy between a client and a Redis server, on plain threads.

mod link;
mod network;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::ports::Port;
use link::Link;
pub use network::{Commands, Network, ProxyCounts};

/// How soon a thread that waits for bytes notices that the network has changed.
pub(crate) const NOTICE: Duration = Duration::from_millis(5);

/// Listens on a free port of 127.0.0.1 and passes what it hears to a server, as its [`Network`] allows. Ends when
/// dropped, with all its connections.
#[derive(Debug)]
pub struct FaultProxy {
    shared: Arc<Shared>,
    port: Port,
    listener: Option<JoinHandle<()>>,
}

/// What the proxy and its connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ended: AtomicBool,
    pub(crate) counts: Counts,
}

#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) network: Network,
    upstream: SocketAddr,
    /// Moves with every change of the network.
    pub(crate) epoch: u64,
    /// Connections made up to this one are half-open: their other end is gone and has not said so.
    pub(crate) stranded: u64,
    /// On connections made up to this one, bytes are held.
    pub(crate) held: u64,
    listening: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connections: AtomicU64,
    pub(crate) commands: AtomicU64,
    pub(crate) replies: AtomicU64,
    pub(crate) delayed: AtomicU64,
    pub(crate) resets: AtomicU64,
    pub(crate) lost_bytes: AtomicU64,
    pub(crate) held: AtomicU64,
    pub(crate) corrupted: AtomicU64,
    pub(crate) answered: AtomicU64,
}

impl FaultProxy {
    /// To a server; all passes, until [`set`](Self::set).
    ///
    /// # Errors
    /// If no port is free.
    pub fn to(upstream: SocketAddr) -> io::Result<Self> {
        let port = Port::free()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number));
        let first = TcpListener::bind(address)?;
        let state =
            State { network: Network::Healthy, upstream, epoch: 0, stranded: 0, held: 0, listening: true };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            ended: AtomicBool::new(false),
            counts: Counts::default(),
        });
        let listener = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.listen(address, first)
        });
        Ok(Self { shared, port, listener: Some(listener) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number).into()
    }

    /// `redis://127.0.0.1:port` of where it listens.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// Changes the network, for open connections and new ones. Returns at once; with [`Network::Refuse`], when nobody
    /// listens any more. Bytes that a connection's threads have in hand go by the old rule.
    pub fn set(&self, network: Network) {
        let refuse = matches!(network, Network::Refuse);
        let mut state = self.shared.lock();
        state.network = network;
        state.epoch += 1;
        self.shared.changed.notify_all();
        while state.listening == refuse {
            state = self.shared.wait(state, Duration::from_secs(1));
        }
    }

    /// Leaves all present connections half-open for good: what is sent on them is lost and nothing comes back, not even
    /// an end. New ones work.
    pub fn strand(&self) {
        let mut state = self.shared.lock();
        state.stranded = self.shared.counts.connections.load(Ordering::Relaxed);
        self.shared.changed.notify_all();
    }

    /// Holds what present connections carry, both ways, until [`release`](Self::release): old packets on a slow path.
    /// New ones work.
    pub fn hold(&self) {
        let mut state = self.shared.lock();
        state.held = self.shared.counts.connections.load(Ordering::Relaxed);
    }

    /// Delivers what [`hold`](Self::hold) has held, also of connections that their client has given up.
    pub fn release(&self) {
        self.shared.lock().held = 0;
        self.shared.changed.notify_all();
    }

    /// Sends new connections to another server, as when a name changes its address.
    pub fn retarget(&self, upstream: SocketAddr) {
        self.shared.lock().upstream = upstream;
    }

    /// What it has done so far.
    pub fn counts(&self) -> ProxyCounts {
        let counts = &self.shared.counts;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ProxyCounts {
            connections: get(&counts.connections),
            commands: get(&counts.commands),
            replies: get(&counts.replies),
            delayed: get(&counts.delayed),
            resets: get(&counts.resets),
            lost_bytes: get(&counts.lost_bytes),
            held: get(&counts.held),
            corrupted: get(&counts.corrupted),
            answered: get(&counts.answered),
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, this long at most.
    pub(crate) fn wait<'a>(&self, state: MutexGuard<'a, State>, longest: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, longest).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn listen(self: Arc<Self>, address: SocketAddr, first: TcpListener) {
        let mut listener = Some(first);
        while !self.ended() {
            let refuse = matches!(self.lock().network, Network::Refuse);
            if refuse {
                listener = None;
            } else if listener.is_none() {
                listener = TcpListener::bind(address).ok();
            }
            let mut state = self.lock();
            state.listening = listener.is_some();
            self.changed.notify_all();
            match &listener {
                Some(listener) => {
                    drop(state);
                    self.accept(listener);
                }
                None => drop(self.wait(state, NOTICE)),
            }
        }
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        let longest = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        if !matches!(poll(&mut fds, Some(&longest)), Ok(ready) if ready > 0) {
            return;
        }
        let Ok((client, _)) = listener.accept() else { return };
        let number = self.counts.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let upstream = self.lock().upstream;
        // A server that is down refuses: so does the proxy, as far as one that has accepted can.
        match TcpStream::connect_timeout(&upstream, Duration::from_secs(1)) {
            Ok(server) => Link::start(Arc::clone(self), number, client, server),
            Err(_) => link::reset(&client),
        }
    }
}
