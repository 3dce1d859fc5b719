//! A tier as an application describes it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::breaker::BreakerOptions;
use crate::backend::{Backend, Holds};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{RestartPolicy, RuntimeHandle};
use crate::value::BackendLabel;
use crate::write_behind::WriteBehind;

/// How a tier behaves. Each backend suggests its own defaults ([`Backend::tier_options`]); [`Tier`] changes them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TierOptions {
    /// How long a read may take, waiting for the mailbox included, before it counts as a miss. Default: 100 ms.
    pub read_deadline: Duration,
    /// How long a mutation may take before its key is quarantined at this tier. Default: 500 ms.
    pub write_deadline: Duration,
    /// How long opening the backend may take before it counts as failed. Default: 5 s.
    pub open_deadline: Duration,
    /// Messages that wait for the actor; callers queue about as much themselves before they send any. Default: 1,024.
    pub mailbox: usize,
    /// Keys in one backend call, at most. Default: 128, but 512 in a Redis tier.
    pub batch_keys: usize,
    /// Keys in one call that stores or removes, at most, where that is less than `batch_keys`. What a write-behind tier
    /// brings to its store from its queue has [a limit of its own](crate::write_behind::WriteBehind::batch_keys). Default:
    /// none, but 128 in a Redis tier that compares stamps.
    pub write_batch_keys: Option<usize>,
    /// Bytes in one writing call, at most, unless one entry alone is larger. Default: 1 MiB.
    pub batch_bytes: usize,
    /// Reading calls in flight, and writing calls in flight, at most. Default: 4.
    pub concurrency: usize,
    /// Calls that may run on past their deadline before the tier counts as stuck and takes no more. Default: 16.
    pub stuck_limit: usize,
    /// For how long after its deadline a call that has not returned may still be applied; past it, its keys are made
    /// good. Shorter than the truth, an older value may come back. Default: what the backend says
    /// ([`Backend::residual`]), which for a store on the blocking pool is "until it returns": there, a key whose call
    /// never returns stays in quarantine, and a tier that is bypassed while one is out stays bypassed (`inspect` shows
    /// such calls as `calls`), until the process ends.
    pub residual: Option<Duration>,
    /// Keys in quarantine before the whole tier is bypassed. Default: 10,000.
    pub quarantine: usize,
    /// The longest life of an entry in this tier. Default: none, but 30 s (5 min with a backplane) above a tier whose store is
    /// [shared](Backend::shared) with other processes, whose writes this tier does not see. `Duration::MAX` is no cap
    /// there either.
    pub ttl_cap: Option<Duration>,
    /// When the breaker opens. Default: see [`BreakerOptions`].
    pub breaker: BreakerOptions,
    /// When and how fast the actor is restarted. Default: see [`RestartPolicy`].
    pub restart: RestartPolicy,
    /// What a failed read of this tier is to the caller of `try_get`. Default: a miss.
    pub on_error: ErrorPolicy,
    /// Whether the cache can only be built with this tier up. Default: no.
    pub required: bool,
    /// How often expired entries are looked for, in tiers that do not expire by themselves. Each time, the tier's actor
    /// deletes them between bursts of messages until none is left, in pieces (256 entries in memory tiers) of which
    /// there are at most 1,024. Default: 1 s, which keeps up with some 260,000 expiries per second.
    pub sweep_interval: Duration,
    /// Whether the tier is only read. Nothing is stored in it, refilled, removed, cleared or swept. What the
    /// application sets or removes is settled here by its stamp: whatever the tier holds of that key and was written
    /// earlier reads as absent in this process, while a later write by the store's owner shows. As many keys as
    /// `quarantine` says are remembered exactly; past that, everything written up to then is absent. Default: no.
    pub read_only: bool,
    /// The largest value stored in this tier, in bytes of its frame, or of its weight where the tier holds decoded
    /// values. A larger one is not stored here, and what is under its key is removed. Default: none, but for the
    /// codec's own limit.
    pub max_value: Option<usize>,
    /// How many of a hundred entries may fail to be decoded before an event and `health()` say so; zero: any number.
    /// Default: 5.
    pub decode_alarm: u8,
}

impl Default for TierOptions {
    fn default() -> Self {
        Self {
            read_deadline: Duration::from_millis(100),
            write_deadline: Duration::from_millis(500),
            open_deadline: Duration::from_secs(5),
            mailbox: 1024,
            batch_keys: 128,
            write_batch_keys: None,
            batch_bytes: 1 << 20,
            concurrency: 4,
            stuck_limit: 16,
            residual: None,
            quarantine: 10_000,
            ttl_cap: None,
            breaker: BreakerOptions::default(),
            restart: RestartPolicy::default(),
            on_error: ErrorPolicy::Miss,
            required: false,
            sweep_interval: Duration::from_secs(1),
            read_only: false,
            max_value: None,
            decode_alarm: 5,
        }
    }
}

impl TierOptions {
    /// Keys in one call that stores or removes, at most.
    pub(crate) fn largest_write(&self) -> usize {
        self.write_batch_keys.map_or(self.batch_keys, |keys| keys.min(self.batch_keys))
    }

    fn validate(&self) -> Result<()> {
        let zero = [
            ("read_deadline", self.read_deadline.is_zero()),
            ("write_deadline", self.write_deadline.is_zero()),
            ("open_deadline", self.open_deadline.is_zero()),
            ("sweep_interval", self.sweep_interval.is_zero()),
            ("ttl_cap", self.ttl_cap.is_some_and(|cap| cap.is_zero())),
            ("mailbox", self.mailbox == 0),
            ("batch_keys", self.batch_keys == 0),
            ("write_batch_keys", self.write_batch_keys == Some(0)),
            ("batch_bytes", self.batch_bytes == 0),
            ("concurrency", self.concurrency == 0),
            ("stuck_limit", self.stuck_limit == 0),
            ("quarantine", self.quarantine == 0),
            ("max_value", self.max_value == Some(0)),
        ];
        if let Some((name, _)) = zero.iter().find(|(_, zero)| *zero) {
            return Err(Error::new(ErrorKind::Config, format!("`{name}` is zero; it must be at least 1")));
        }
        if self.decode_alarm > 100 {
            return Err(Error::new(ErrorKind::Config, "`decode_alarm` is a percentage: at most 100"));
        }
        self.breaker.validate()
    }
}

/// What a failed read of a tier is to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ErrorPolicy {
    /// A miss, named in [`Lookup::degraded`](crate::Lookup::degraded).
    #[default]
    Miss,
    /// An error of `try_get` (and still a miss of `get`).
    Fail,
}

/// One tier of a cache: a backend and how it is to be treated.
///
/// Every [`Backend`] converts into a tier with its suggested options.
///
/// ```
/// use std::time::Duration;
/// use tierkeep::{Tier, backend::MemoryBackend};
///
/// let tier = Tier::new(MemoryBackend::entries(10_000)).label("hot").ttl_cap(Duration::from_secs(30));
/// # let _ = tier;
/// ```
#[derive(Clone)]
pub struct Tier {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) label: BackendLabel,
    pub(crate) options: TierOptions,
    pub(crate) write_behind: Option<WriteBehind>,
    /// The cap while no backplane tells what other processes write.
    pub(crate) fallback_cap: Option<Duration>,
}

impl Tier {
    /// A tier on `backend`, with the options it suggests.
    pub fn new(backend: impl Backend) -> Self {
        Self::from_shared(Arc::new(backend))
    }

    /// A tier on a backend that the application keeps a handle to.
    pub fn from_shared(backend: Arc<dyn Backend>) -> Self {
        let (label, options) = (backend.label(), backend.tier_options());
        Self { backend, label, options, write_behind: None, fallback_cap: None }
    }

    /// Names the tier; names are unique within a cache.
    #[must_use]
    pub fn label(mut self, label: impl Into<BackendLabel>) -> Self {
        self.label = label.into();
        self
    }

    /// Replaces all options.
    #[must_use]
    pub fn options(mut self, options: TierOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets [`TierOptions::read_deadline`].
    #[must_use]
    pub fn read_deadline(mut self, deadline: Duration) -> Self {
        self.options.read_deadline = deadline;
        self
    }

    /// Sets [`TierOptions::write_deadline`].
    #[must_use]
    pub fn write_deadline(mut self, deadline: Duration) -> Self {
        self.options.write_deadline = deadline;
        self
    }

    /// Sets [`TierOptions::open_deadline`].
    #[must_use]
    pub fn open_deadline(mut self, deadline: Duration) -> Self {
        self.options.open_deadline = deadline;
        self
    }

    /// Sets [`TierOptions::mailbox`], in messages.
    #[must_use]
    pub fn mailbox(mut self, messages: usize) -> Self {
        self.options.mailbox = messages;
        self
    }

    /// Sets [`TierOptions::batch_keys`].
    #[must_use]
    pub fn batch_keys(mut self, keys: usize) -> Self {
        self.options.batch_keys = keys;
        self
    }

    /// Sets [`TierOptions::write_batch_keys`].
    #[must_use]
    pub fn write_batch_keys(mut self, keys: usize) -> Self {
        self.options.write_batch_keys = Some(keys);
        self
    }

    /// Sets [`TierOptions::batch_bytes`].
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.options.batch_bytes = bytes;
        self
    }

    /// Sets [`TierOptions::concurrency`], in calls.
    #[must_use]
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.options.concurrency = calls;
        self
    }

    /// Sets [`TierOptions::stuck_limit`], in calls.
    #[must_use]
    pub fn stuck_limit(mut self, calls: usize) -> Self {
        self.options.stuck_limit = calls;
        self
    }

    /// Sets [`TierOptions::residual`].
    #[must_use]
    pub fn residual(mut self, residual: Duration) -> Self {
        self.options.residual = Some(residual);
        self
    }

    /// Sets [`TierOptions::quarantine`], in keys.
    #[must_use]
    pub fn quarantine(mut self, keys: usize) -> Self {
        self.options.quarantine = keys;
        self
    }

    /// Sets [`TierOptions::ttl_cap`].
    #[must_use]
    pub fn ttl_cap(mut self, cap: Duration) -> Self {
        self.options.ttl_cap = Some(cap);
        self
    }

    /// Sets [`TierOptions::breaker`].
    #[must_use]
    pub fn breaker(mut self, breaker: BreakerOptions) -> Self {
        self.options.breaker = breaker;
        self
    }

    /// Sets [`TierOptions::restart`].
    #[must_use]
    pub fn restart(mut self, restart: RestartPolicy) -> Self {
        self.options.restart = restart;
        self
    }

    /// Sets [`TierOptions::on_error`].
    #[must_use]
    pub fn on_error(mut self, policy: ErrorPolicy) -> Self {
        self.options.on_error = policy;
        self
    }

    /// Sets [`TierOptions::required`].
    #[must_use]
    pub fn required(mut self, required: bool) -> Self {
        self.options.required = required;
        self
    }

    /// Sets [`TierOptions::sweep_interval`].
    #[must_use]
    pub fn sweep_interval(mut self, interval: Duration) -> Self {
        self.options.sweep_interval = interval;
        self
    }

    /// Sets [`TierOptions::read_only`].
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.options.read_only = read_only;
        self
    }

    /// Sets [`TierOptions::max_value`], in bytes.
    #[must_use]
    pub fn max_value(mut self, bytes: usize) -> Self {
        self.options.max_value = Some(bytes);
        self
    }

    /// Sets [`TierOptions::decode_alarm`], in percent.
    #[must_use]
    pub fn decode_alarm(mut self, percent: u8) -> Self {
        self.options.decode_alarm = percent;
        self
    }

    /// Makes the tier write behind: what is set or removed is acknowledged once it is queued, shown by every read, and
    /// brought to the store in the background. See [`write_behind`](crate::write_behind). Not for the topmost tier of a
    /// cache, nor for one that is only read.
    #[must_use]
    pub fn write_behind(mut self, write_behind: WriteBehind) -> Self {
        self.write_behind = Some(write_behind);
        self
    }

    pub(crate) fn validate(&self, runtime: &RuntimeHandle) -> Result<()> {
        if self.label.as_str().is_empty() {
            return Err(Error::new(ErrorKind::Config, "a tier's label is empty; name it with `Tier::label`"));
        }
        let behind = || match &self.write_behind {
            Some(_) if self.options.read_only => {
                let message =
                    "a tier that is only read cannot write behind; drop `read_only` or `write_behind`";
                Err(Error::new(ErrorKind::Config, message))
            }
            Some(write_behind)
                if write_behind.options.is_journaled() && self.backend.holds() != Holds::Bytes =>
            {
                let message =
                    "the journal keeps bytes, and this tier holds decoded values; use `WriteBehind::memory`";
                Err(Error::new(ErrorKind::Config, message))
            }
            Some(write_behind) => write_behind.options.validate(),
            None => Ok(()),
        };
        self.options
            .validate()
            .and_then(|()| behind())
            .and_then(|()| self.backend.validate())
            .and_then(|()| self.backend.suits(runtime))
            .map_err(|e| e.at_tier(&self.label))
    }
}

impl<B: Backend> From<B> for Tier {
    fn from(backend: B) -> Self {
        Self::new(backend)
    }
}

impl fmt::Debug for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tier")
            .field("label", &self.label)
            .field("options", &self.options)
            .field("write_behind", &self.write_behind)
            .finish_non_exhaustive()
    }
}
