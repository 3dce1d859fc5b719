//! Dead letters through a channel, for an application that deals with them itself.

use std::fmt;

use async_trait::async_trait;

use super::dead_letter::{DeadLetter, DeadLetterSink};
use crate::backend::BackendResult;
use crate::error::{Error, ErrorKind};

/// A sink that hands letters to whoever holds the other end.
///
/// A full channel makes the delivery wait; after 5 s the letter counts as undelivered, and is kept among
/// [`Cache::undelivered_letters`](crate::Cache::undelivered_letters). So it is once the other end is gone.
///
/// ```
/// # fn main() -> tierkeep::Result<()> {
/// use std::time::Duration;
/// use tierkeep::write_behind::{ChannelLetters, WriteBehind};
///
/// let (sink, letters) = ChannelLetters::bounded(1_000)?;
/// let behind = WriteBehind::memory().dead_letters(sink);
/// # let _ = behind;
/// // elsewhere: while let Some(letter) = letters.receive().await { cache.redrive(&letter).await?; }
/// # assert!(letters.try_receive().is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ChannelLetters(flume::Sender<DeadLetter>);

/// The receiving end of [`ChannelLetters`]. Clones share the letters: each goes to one of them.
#[derive(Clone)]
pub struct LetterReceiver(flume::Receiver<DeadLetter>);

impl ChannelLetters {
    /// A channel that holds up to `capacity` letters.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if `capacity` is 0.
    pub fn bounded(capacity: usize) -> BackendResult<(Self, LetterReceiver)> {
        if capacity == 0 {
            return Err(Error::new(ErrorKind::Config, "the channel for dead letters must hold at least 1"));
        }
        let (sender, receiver) = flume::bounded(capacity);
        Ok((Self(sender), LetterReceiver(receiver)))
    }
}

#[async_trait]
impl DeadLetterSink for ChannelLetters {
    async fn deliver(&self, letter: &DeadLetter) -> BackendResult<()> {
        self.0.send_async(letter.clone()).await.map_err(|_| {
            Error::new(ErrorKind::Closed, "nobody receives dead letters any more").for_key(&letter.key)
        })
    }
}

impl LetterReceiver {
    /// The next letter; `None` once the tier is gone and all have been received. Cancel-safe: a letter is taken only
    /// when this returns it.
    pub async fn receive(&self) -> Option<DeadLetter> {
        self.0.recv_async().await.ok()
    }

    /// The next letter, if there is one now.
    pub fn try_receive(&self) -> Option<DeadLetter> {
        self.0.try_recv().ok()
    }

    /// How many letters wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for ChannelLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelLetters").field("waiting", &self.0.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for LetterReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LetterReceiver").field("waiting", &self.0.len()).finish_non_exhaustive()
    }
}
