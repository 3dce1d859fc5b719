//! Who else there is, and whether anything of theirs was missed.

use std::collections::HashMap;
use std::time::Duration;

use crate::runtime::Instant;

/// For how long one that fell silent is expected back. One that is heard later is a stranger.
pub(super) const EXPECTED: Duration = Duration::from_secs(600);

/// Processes that are remembered; past it, the one that has been silent for longest is forgotten.
const MAX_PEERS: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Peers {
    known: HashMap<u64, Peer>,
}

#[derive(Debug)]
struct Peer {
    /// The number of its last message; `None`: it has not been heard since the subscription began.
    number: Option<u64>,
    heard: Instant,
    /// It was taken for gone: what it wrote last may not have been told.
    gone: bool,
}

/// What a message says about those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    InOrder,
    /// Some are missing.
    Gap,
    /// Heard for the first time, and not its first message: whether some are missing since this process began to hear,
    /// nobody knows.
    Stranger,
}

impl Peers {
    /// A subscription begins: what was sent before is not heard. Who was there is expected to be heard again.
    pub(super) fn subscribed(&mut self, now: Instant) {
        for peer in self.known.values_mut() {
            peer.number = None;
            if !peer.gone {
                peer.heard = now;
            }
        }
    }

    /// A message of `node`.
    pub(super) fn hear(&mut self, node: u64, number: u64, has_notes: bool, now: Instant) -> Heard {
        let first = u64::from(has_notes);
        if let Some(peer) = self.known.get_mut(&node)
            && let Some(last) = peer.number
        {
            // Whatever stands in a message.
            let expected = last.saturating_add(first);
            peer.number = Some(last.max(number));
            (peer.heard, peer.gone) = (now, false);
            return if number > expected { Heard::Gap } else { Heard::InOrder };
        }
        if self.known.len() >= MAX_PEERS && !self.known.contains_key(&node) {
            let oldest =
                self.known.iter().min_by_key(|(node, peer)| (peer.heard, **node)).map(|(node, _)| *node);
            oldest.map(|oldest| self.known.remove(&oldest));
        }
        self.known.insert(node, Peer { number: Some(number), heard: now, gone: false });
        // One that is new begins with 1.
        if number > first { Heard::Stranger } else { Heard::InOrder }
    }

    /// It has told everything and will tell no more.
    pub(super) fn left(&mut self, node: u64) {
        self.known.remove(&node);
    }

    /// Whether somebody has just been silent for so long that it has to be taken for gone.
    pub(super) fn lose(&mut self, now: Instant, silence: Duration) -> bool {
        self.known.retain(|_, peer| !peer.gone || now.since(peer.heard) < EXPECTED);
        let mut lost = false;
        for peer in self.known.values_mut().filter(|peer| !peer.gone) {
            peer.gone = now.since(peer.heard) >= silence;
            lost |= peer.gone;
        }
        lost
    }

    /// Processes that are heard.
    pub(super) fn len(&self) -> usize {
        self.known.values().filter(|peer| !peer.gone && peer.number.is_some()).count()
    }

    /// Processes that fell silent without taking leave: they may write and be unable to tell.
    pub(super) fn missing(&self) -> usize {
        self.known.values().filter(|peer| peer.gone).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn numbers_in_order_are_no_gap() {
        let mut peers = Peers::default();
        peers.subscribed(at(0));
        assert_eq!(peers.hear(7, 41, true, at(10)), Heard::Stranger, "it was there before");
        assert_eq!(peers.hear(7, 42, true, at(20)), Heard::InOrder);
        assert_eq!(peers.hear(7, 42, false, at(30)), Heard::InOrder, "a heartbeat");
        assert_eq!(peers.hear(7, 42, true, at(30)), Heard::InOrder, "sent twice");
    }

    #[test]
    fn what_is_missing_is_noticed_by_the_next_message_or_heartbeat() {
        let mut peers = Peers::default();
        peers.subscribed(at(0));
        peers.hear(7, 1, true, at(10));
        assert_eq!(peers.hear(7, 3, true, at(20)), Heard::Gap);
        assert_eq!(peers.hear(7, 4, false, at(30)), Heard::Gap, "the last one was lost");
        assert_eq!(peers.hear(7, 4, false, at(40)), Heard::InOrder);
    }

    #[test]
    fn no_number_is_too_great() {
        let mut peers = Peers::default();
        peers.subscribed(at(0));
        for _ in 0..2 {
            peers.hear(7, u64::MAX, true, at(10));
        }
        assert_eq!(peers.hear(7, u64::MAX, true, at(20)), Heard::InOrder);
    }

    #[test]
    fn of_one_that_appears_later_everything_must_have_been_heard() {
        let mut peers = Peers::default();
        peers.subscribed(at(0));
        assert_eq!(peers.hear(7, 1, true, at(10_000)), Heard::InOrder);
        assert_eq!(peers.hear(8, 0, false, at(10_000)), Heard::InOrder);
        assert_eq!(peers.hear(9, 5, true, at(10_000)), Heard::Stranger);
        assert_eq!(peers.hear(10, 1, false, at(10_000)), Heard::Stranger, "its first message was lost");
    }

    #[test]
    fn who_is_silent_is_gone_once() {
        let mut peers = Peers::default();
        peers.subscribed(at(0));
        peers.hear(7, 1, true, at(10));
        peers.hear(8, 1, true, at(10));
        peers.left(8);
        assert!(!peers.lose(at(2_000), Duration::from_secs(3)));
        assert!(peers.lose(at(3_100), Duration::from_secs(3)));
        assert!(!peers.lose(at(3_200), Duration::from_secs(3)));
        assert_eq!((peers.len(), peers.missing()), (0, 1));
        assert_eq!(peers.hear(7, 2, true, at(3_300)), Heard::InOrder, "it is back, with nothing missing");
    }

    #[test]
    fn who_is_silent_is_expected_back_for_a_while_across_subscriptions_too() {
        let mut peers = Peers::default();
        let silence = Duration::from_secs(3);
        peers.hear(7, 4, true, at(0));
        peers.hear(8, 4, true, at(0));
        assert!(peers.lose(at(3_000), silence));
        assert_eq!(peers.missing(), 2);
        peers.subscribed(at(4_000));
        assert_eq!(peers.hear(7, 5, true, at(4_000)), Heard::Stranger, "it may have told more meanwhile");
        assert_eq!((peers.len(), peers.missing()), (1, 1));
        peers.subscribed(at(5_000));
        assert!(peers.lose(at(8_000), silence), "it ended while nothing was heard");
        assert!(!peers.lose(at(600_000), silence));
        assert_eq!(peers.missing(), 1, "one heard at 0 s is forgotten, one at 5 s not yet");
        peers.lose(at(605_000), silence);
        assert_eq!(peers.missing(), 0);
    }
}
