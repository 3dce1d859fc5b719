//! What can be wrong with a network, or seem so.

use std::time::Duration;

/// What happens to the bytes that pass.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Network {
    /// They pass.
    Healthy,
    /// Replies come this much later (those that arrive while others wait, up to twice as much).
    Delay(Duration),
    /// Each connection passes so many bytes of replies from now on, and then ends with a reset.
    ResetAfter(usize),
    /// The other host is gone: connections are accepted (as a system does) and what is sent is lost. Once healthy
    /// again, the host knows nothing of the connections that lost bytes and resets them.
    Blackhole,
    /// Nobody listens: new connections are refused, open ones reset.
    Refuse,
    /// Bytes are held in both directions, and come once it is healthy again.
    Partition,
    /// Every byte string of more than this many bytes in a reply has a bit in its middle flipped.
    Corrupt(usize),
    /// Replies are replaced by bytes that are no protocol.
    Garble,
    /// These commands are answered with an error and not passed; the text as the server sends it, without the dash.
    Answer(Commands, String),
    /// With the first of these commands a connection hangs: it and all that follows is lost, until the network changes.
    HangAt(Commands),
}

impl Network {
    /// As a server that still reads its data from disk.
    pub fn loading() -> Self {
        Self::Answer(Commands::Data, "LOADING Redis is loading the dataset in memory".into())
    }

    /// As a replica.
    pub fn read_only() -> Self {
        Self::Answer(Commands::Writes, "READONLY You can't write against a read only replica.".into())
    }

    /// As a server at its memory limit.
    pub fn out_of_memory() -> Self {
        Self::Answer(Commands::Writes, "OOM command not allowed when used memory > 'maxmemory'.".into())
    }
}

/// Some commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commands {
    /// Those that change data, scripts included.
    Writes,
    /// All but those that set up a connection.
    Data,
    /// The one with this name.
    Named(&'static str),
}

impl Commands {
    pub(crate) fn includes(self, name: &[u8]) -> bool {
        let is = |names: &[&str]| names.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()));
        match self {
            Self::Writes => is(&[
                "SET",
                "SETEX",
                "PSETEX",
                "MSET",
                "DEL",
                "UNLINK",
                "GETDEL",
                "EXPIRE",
                "PEXPIRE",
                "PEXPIREAT",
                "EVAL",
                "EVALSHA",
                "FCALL",
                "FLUSHDB",
                "INCR",
                "INCRBY",
            ]),
            Self::Named(only) => is(&[only]),
            Self::Data => !is(&["HELLO", "AUTH", "CLIENT", "SELECT", "CLUSTER", "COMMAND"]),
        }
    }
}

/// What a proxy has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyCounts {
    /// Connections accepted.
    pub connections: u64,
    /// Commands passed.
    pub commands: u64,
    /// Replies passed, on time or late, whole or not.
    pub replies: u64,
    /// Times that replies waited.
    pub delayed: u64,
    /// Connections reset.
    pub resets: u64,
    /// Bytes lost, either way.
    pub lost_bytes: u64,
    /// Times that bytes were held.
    pub held: u64,
    /// Replies changed.
    pub corrupted: u64,
    /// Commands answered in the server's place.
    pub answered: u64,
}
