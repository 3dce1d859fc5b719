//! One connection through the proxy: a thread for each direction.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{NOTICE, Network, Shared, State};
use crate::resp::frame_len;

/// Bytes that are no protocol: no kind of reply begins so.
const GARBAGE: &[u8] = b"\x16\x03\x01 HTTP/1.1 400 Bad Request\r\n\r\n";

pub(crate) struct Link {
    shared: Arc<Shared>,
    number: u64,
    client: TcpStream,
    server: TcpStream,
    /// Both threads end when one does.
    over: AtomicBool,
    /// Bytes were lost: whoever listens again knows nothing of this connection.
    tainted: AtomicBool,
    /// A command was lost at which it hangs.
    hung: AtomicBool,
    owed: Mutex<Owed>,
}

/// The replies that the client waits for, in the order of its commands.
#[derive(Default)]
struct Owed(VecDeque<Source>);

enum Source {
    Server,
    Proxy(Vec<u8>),
}

/// What to do with bytes that have come.
enum Verdict {
    Pass(State),
    Lose,
    End,
}

/// Makes the end of a connection a reset, once both threads let go of it.
pub(super) fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

impl Link {
    pub(super) fn start(shared: Arc<Shared>, number: u64, client: TcpStream, server: TcpStream) {
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
            let _ = stream.set_read_timeout(Some(NOTICE));
            let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
        }
        let (over, tainted) = (AtomicBool::new(false), AtomicBool::new(false));
        let (hung, owed) = (AtomicBool::new(false), Mutex::default());
        let link = Arc::new(Self { shared, number, client, server, over, tainted, hung, owed });
        let requests = Arc::clone(&link);
        std::thread::spawn(move || requests.requests());
        std::thread::spawn(move || link.replies());
    }

    fn requests(&self) {
        let mut buffer = Vec::new();
        while self.receive(&self.client, &mut buffer) {
            match self.verdict() {
                Verdict::Pass(state) => {
                    if self.pass_commands(&state, &mut buffer).is_err() {
                        break;
                    }
                }
                Verdict::Lose => self.lose(&mut buffer),
                Verdict::End => break,
            }
        }
        self.over.store(true, Ordering::Relaxed);
    }

    fn replies(&self) {
        let mut buffer = Vec::new();
        let mut since_reset_was_set = (0, 0);
        while self.receive(&self.server, &mut buffer) {
            let Verdict::Pass(state) = self.delayed_verdict() else {
                self.lose(&mut buffer);
                continue;
            };
            let passed = match state.network {
                Network::ResetAfter(bytes) => {
                    if since_reset_was_set.0 != state.epoch {
                        since_reset_was_set = (state.epoch, bytes);
                    }
                    self.pass_then_reset(&mut buffer, &mut since_reset_was_set.1)
                }
                _ => self.pass_replies(&state, &mut buffer),
            };
            if passed.is_err() {
                break;
            }
        }
        self.over.store(true, Ordering::Relaxed);
    }

    /// Waits for more bytes; false: the connection is over.
    fn receive(&self, mut from: &TcpStream, buffer: &mut Vec<u8>) -> bool {
        let mut chunk = [0; 64 << 10];
        loop {
            if self.over.load(Ordering::Relaxed) || self.shared.ended() || self.is_to_end() {
                return false;
            }
            match from.read(&mut chunk) {
                Ok(0) => return false,
                Ok(read) => {
                    buffer.extend_from_slice(&chunk[..read]);
                    return true;
                }
                // Interrupted: of a process that was stopped and goes on.
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {}
                    _ => return false,
                },
            }
        }
    }

    /// Open connections end with a reset when nobody listens, and after they lost bytes to a host that is back.
    fn is_to_end(&self) -> bool {
        let state = self.shared.lock();
        let lossy = matches!(state.network, Network::Blackhole | Network::ResetAfter(_) | Network::HangAt(_))
            || self.number <= state.stranded;
        let end =
            matches!(state.network, Network::Refuse) || (self.tainted.load(Ordering::Relaxed) && !lossy);
        if end {
            self.end_with_reset();
        }
        end
    }

    fn end_with_reset(&self) {
        if !self.over.swap(true, Ordering::Relaxed) {
            self.shared.counts.resets.fetch_add(1, Ordering::Relaxed);
        }
        reset(&self.client);
    }

    fn lose(&self, buffer: &mut Vec<u8>) {
        self.tainted.store(true, Ordering::Relaxed);
        self.shared.counts.lost_bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        buffer.clear();
    }

    fn verdict(&self) -> Verdict {
        let mut held = false;
        let mut state = self.shared.lock();
        loop {
            // What was held arrives, though its client may have given up.
            if (!held && self.over.load(Ordering::Relaxed)) || self.shared.ended() {
                return Verdict::End;
            }
            if self.number <= state.stranded || matches!(state.network, Network::Blackhole) {
                return Verdict::Lose;
            }
            if matches!(state.network, Network::Refuse) {
                return Verdict::End;
            }
            if self.number > state.held && !matches!(state.network, Network::Partition) {
                return Verdict::Pass(state.clone());
            }
            if !std::mem::replace(&mut held, true) {
                self.shared.counts.held.fetch_add(1, Ordering::Relaxed);
            }
            state = self.shared.wait(state, NOTICE);
        }
    }

    fn delayed_verdict(&self) -> Verdict {
        let came = Instant::now();
        let mut waited = false;
        loop {
            let state = match self.verdict() {
                Verdict::Pass(state) => state,
                other => return other,
            };
            let Network::Delay(delay) = state.network else { return Verdict::Pass(state) };
            let left = delay.saturating_sub(came.elapsed());
            if left.is_zero() {
                return Verdict::Pass(state);
            }
            if !std::mem::replace(&mut waited, true) {
                self.shared.counts.delayed.fetch_add(1, Ordering::Relaxed);
            }
            drop(self.shared.wait(self.shared.lock(), left));
        }
    }

    fn pass_commands(&self, state: &State, buffer: &mut Vec<u8>) -> io::Result<()> {
        let mut passed = Vec::new();
        let mut taken = 0;
        while let Some(len) = frame_len(&buffer[taken..]) {
            let frame = &buffer[taken..taken + len];
            taken += len;
            if matches!(&state.network, Network::HangAt(commands) if self.hung.load(Ordering::Relaxed) || commands.includes(name(frame)))
            {
                self.hung.store(true, Ordering::Relaxed);
                self.lose(&mut frame.to_vec());
                continue;
            }
            let answer = match &state.network {
                Network::Answer(commands, text) if commands.includes(name(frame)) => {
                    Some(format!("-{text}\r\n"))
                }
                _ => None,
            };
            let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                None => {
                    self.shared.counts.commands.fetch_add(1, Ordering::Relaxed);
                    passed.extend_from_slice(frame);
                    owed.0.push_back(Source::Server);
                }
                Some(answer) => {
                    self.shared.counts.answered.fetch_add(1, Ordering::Relaxed);
                    owed.0.push_back(Source::Proxy(answer.into_bytes()));
                    self.send_own(&mut owed)?;
                }
            }
        }
        buffer.drain(..taken);
        (&self.server).write_all(&passed)
    }

    /// The proxy's own answers, as soon as none of the server's comes before them.
    fn send_own(&self, owed: &mut Owed) -> io::Result<()> {
        while let Some(Source::Proxy(_)) = owed.0.front() {
            if let Some(Source::Proxy(answer)) = owed.0.pop_front() {
                (&self.client).write_all(&answer)?;
            }
        }
        Ok(())
    }

    fn pass_replies(&self, state: &State, buffer: &mut Vec<u8>) -> io::Result<()> {
        let mut taken = 0;
        while let Some(len) = frame_len(&buffer[taken..]) {
            let frame = &mut buffer[taken..taken + len];
            taken += len;
            self.shared.counts.replies.fetch_add(1, Ordering::Relaxed);
            let garbage = matches!(state.network, Network::Garble);
            let changed = match state.network {
                Network::Corrupt(over) => flip(frame, over),
                _ => garbage,
            };
            self.shared.counts.corrupted.fetch_add(u64::from(changed), Ordering::Relaxed);
            // Under the lock, so that an answer of the proxy's own does not come between.
            let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
            (&self.client).write_all(if garbage { GARBAGE } else { frame })?;
            // Pushed messages answer no command.
            if frame.first() != Some(&b'>') && matches!(owed.0.front(), Some(Source::Server)) {
                owed.0.pop_front();
                self.send_own(&mut owed)?;
            }
        }
        buffer.drain(..taken);
        Ok(())
    }

    fn pass_then_reset(&self, buffer: &mut Vec<u8>, left: &mut usize) -> io::Result<()> {
        // Cut anywhere, so this connection can only end: with the reset, or when the network is healthy before.
        self.tainted.store(true, Ordering::Relaxed);
        let passed = buffer.len().min(*left);
        (&self.client).write_all(&buffer[..passed])?;
        *left -= passed;
        buffer.clear();
        if *left > 0 {
            return Ok(());
        }
        self.end_with_reset();
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

/// A command's name: the first string of its array.
fn name(frame: &[u8]) -> &[u8] {
    let mut parts = frame.split(|byte| *byte == b'\n');
    let name = parts.nth(2).unwrap_or_default();
    name.strip_suffix(b"\r").unwrap_or(name)
}

/// Flips a bit in the middle of every string that is longer than this; returns whether there was one.
fn flip(frame: &mut [u8], over: usize) -> bool {
    let mut changed = false;
    let mut at = 0;
    while let Some(end) = frame[at..].windows(2).position(|pair| pair == b"\r\n") {
        let head = &frame[at..at + end];
        let len = match head.split_first() {
            Some((b'$', len)) => std::str::from_utf8(len).ok().and_then(|len| len.parse::<usize>().ok()),
            _ => None,
        };
        at += end + 2;
        let Some(len) = len else { continue };
        if len > over && at + len <= frame.len() {
            frame[at + len / 2] ^= 0x10;
            changed = true;
        }
        at += len + 2;
        if at >= frame.len() {
            break;
        }
    }
    changed
}
