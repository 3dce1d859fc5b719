//! Free ports that stay ours while a server is down.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// Below the range that systems give to outgoing connections (from 32,768), and so are the ports of the cluster bus,
/// 10,000 higher: nobody gets a stopped server's port by chance, and no client connects to itself there.
const FIRST: u16 = 13_000;
const COUNT: u16 = 9_000;

/// A port that no other test process takes.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    /// Reserves the number among all that use this crate, also while no server listens on it: redis-server uses no UDP.
    _reservation: UdpSocket,
}

impl Port {
    /// Reserves a port that is free, as is its cluster bus port.
    pub(crate) fn free() -> io::Result<Self> {
        let random = RandomState::new().build_hasher().finish();
        let start = u16::try_from(random % u64::from(COUNT)).unwrap_or(0);
        (0..COUNT)
            .find_map(|step| {
                let number = FIRST + (start + step) % COUNT;
                let port = Self::take(number).ok()?;
                let listens = |number| TcpListener::bind((Ipv4Addr::LOCALHOST, number));
                (listens(number).is_ok() && listens(number + 10_000).is_ok()).then_some(port)
            })
            .ok_or_else(|| io::Error::other("no free port on 127.0.0.1"))
    }

    /// Reserves this one.
    pub(crate) fn take(number: u16) -> io::Result<Self> {
        let reservation = UdpSocket::bind((Ipv4Addr::LOCALHOST, number))?;
        Ok(Self { number, _reservation: reservation })
    }
}
