//! As much of the Redis protocol as a test needs: commands, replies, and where a frame ends.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// For an answer: a server that is paused must not hang the test, nor a busy machine fail it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Simple(String),
    /// `-ERR ...`, without the dash
    Error(String),
    /// `:1`
    Integer(i64),
    /// A string of bytes.
    Bulk(Vec<u8>),
    /// No value.
    Null,
    /// Several.
    Array(Vec<Reply>),
}

impl Reply {
    /// Its text, whatever kind it is; of several, one per line.
    pub fn text(&self) -> String {
        match self {
            Self::Simple(text) | Self::Error(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Null => String::new(),
            Self::Array(items) => items.iter().map(Self::text).collect::<Vec<_>>().join("\n"),
        }
    }

    /// # Errors
    /// The server's, if this is one.
    pub fn ok(self) -> io::Result<Self> {
        match self {
            Self::Error(text) => Err(io::Error::other(format!("the server answered: {text}"))),
            other => Ok(other),
        }
    }
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// A connection that sends one command at a time and waits for its answer, 30 s at most.
pub struct Client {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// # Errors
    /// If nobody listens there.
    pub fn tcp(addr: SocketAddr) -> io::Result<Self> {
        Self::tcp_within(addr, PATIENCE)
    }

    /// One that waits no longer than this for an answer, for those who expect none.
    ///
    /// # Errors
    /// As of [`tcp`](Self::tcp).
    pub fn tcp_within(addr: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: Box::new(stream), received: Vec::new() })
    }

    /// # Errors
    /// If nobody listens there.
    pub fn unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: Box::new(stream), received: Vec::new() })
    }

    /// Sends a command; an error that the server answers is a [`Reply::Error`].
    ///
    /// # Errors
    /// If the connection fails or too long passes without an answer.
    pub fn command<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Reply> {
        let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            bytes.extend_from_slice(format!("${}\r\n", arg.as_ref().len()).as_bytes());
            bytes.extend_from_slice(arg.as_ref());
            bytes.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&bytes)?;
        self.reply()
    }

    /// The next reply, as after `SUBSCRIBE`.
    ///
    /// # Errors
    /// As of [`command`](Self::command).
    pub fn reply(&mut self) -> io::Result<Reply> {
        let mut chunk = [0; 16 << 10];
        loop {
            if let Some(len) = frame_len(&self.received) {
                let frame: Vec<u8> = self.received.drain(..len).collect();
                return parse(&mut frame.as_slice()).ok_or_else(|| io::Error::other("not a reply in RESP2"));
            }
            let read = match self.stream.read(&mut chunk) {
                // A process that was stopped and goes on is told so.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received.extend_from_slice(&chunk[..read]);
        }
    }
}

/// A line without its end, and what follows it.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

fn number(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// How many bytes the first frame (a reply or a command) takes; `None`: it is not complete.
pub(crate) fn frame_len(bytes: &[u8]) -> Option<usize> {
    let (head, mut rest) = line(bytes)?;
    let count = head.get(1..).and_then(number).unwrap_or(0);
    let mut parts = match head.first()? {
        b'$' | b'=' | b'!' if count >= 0 => {
            let end = usize::try_from(count).ok()? + 2;
            rest = rest.get(end..)?;
            0
        }
        b'*' | b'~' | b'>' => count,
        b'%' => 2 * count,
        // An attribute precedes what it belongs to.
        b'|' => 2 * count + 1,
        _ => 0,
    };
    while parts > 0 {
        rest = &rest[frame_len(rest)?..];
        parts -= 1;
    }
    Some(bytes.len() - rest.len())
}

/// A complete reply in RESP2.
pub(crate) fn parse(bytes: &mut &[u8]) -> Option<Reply> {
    let (head, rest) = line(bytes)?;
    *bytes = rest;
    let text = || String::from_utf8_lossy(&head[1..]).into_owned();
    Some(match head.first()? {
        b'+' => Reply::Simple(text()),
        b'-' => Reply::Error(text()),
        b':' => Reply::Integer(number(&head[1..])?),
        b'$' => match usize::try_from(number(&head[1..])?) {
            Err(_) => Reply::Null,
            Ok(len) => {
                let (bulk, rest) = bytes.split_at_checked(len)?;
                *bytes = rest.get(2..)?;
                Reply::Bulk(bulk.to_vec())
            }
        },
        b'*' => match usize::try_from(number(&head[1..])?) {
            Err(_) => Reply::Null,
            Ok(len) => Reply::Array((0..len).map(|_| parse(bytes)).collect::<Option<_>>()?),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_ends_where_its_last_part_does() {
        for frame in [
            "+OK\r\n",
            "$3\r\na\r\n\r\n",
            "$-1\r\n",
            "*2\r\n$1\r\na\r\n:1\r\n",
            "*-1\r\n",
            "%1\r\n+a\r\n_\r\n",
        ] {
            let longer = format!("{frame}+next\r\n");
            assert_eq!(frame_len(longer.as_bytes()), Some(frame.len()), "{frame:?}");
            for cut in 0..frame.len() {
                assert_eq!(frame_len(&frame.as_bytes()[..cut]), None, "{frame:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn replies_are_read_back() {
        let reply = parse(&mut b"*3\r\n$1\r\na\r\n$-1\r\n-ERR no\r\n".as_slice());
        let items = vec![Reply::Bulk(b"a".to_vec()), Reply::Null, Reply::Error("ERR no".into())];
        assert_eq!(reply, Some(Reply::Array(items)));
    }
}
