//! The one error of the engine: what failed, on which tier and key, and what to do about it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::key::CacheKey;
use crate::value::{BackendLabel, Stamp};

/// A result whose error is the engine's.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the terms that decide what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The builder was given something that cannot work; the message names it.
    Config,
    /// No answer within the deadline. A mutation may still have been applied: its key is quarantined at that tier.
    Timeout,
    /// A mailbox, queue or pool was at its limit.
    Overloaded,
    /// The tier is down, bypassed, or its breaker is open.
    Unavailable,
    /// The tier's actor was restarted before it answered.
    Restarted,
    /// The backend, a format, a loader or a user's callback panicked.
    Panicked,
    /// The backend reported an error; see [`source`](std::error::Error::source).
    Backend,
    /// The value could not be encoded.
    Encode,
    /// Bytes from a store could not be decoded.
    Decode,
    /// A value or key is over its size limit.
    TooLarge,
    /// A value of another type stands under this key or region.
    TypeMismatch,
    /// The backend does not offer this operation.
    Unsupported,
    /// The store holds a newer entry of the key, written by another process: nothing was changed. Only a store that
    /// [compares](crate::Backend::compares) answers so; see [`Error::superseded`].
    Superseded,
    /// The loader failed; see [`source`](std::error::Error::source).
    Load,
    /// The cache has been shut down.
    Closed,
}

impl ErrorKind {
    /// The kind in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "invalid configuration",
            Self::Timeout => "deadline exceeded",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Restarted => "restarted before answering",
            Self::Panicked => "panicked",
            Self::Backend => "backend error",
            Self::Encode => "cannot encode",
            Self::Decode => "cannot decode",
            Self::TooLarge => "too large",
            Self::TypeMismatch => "type mismatch",
            Self::Unsupported => "unsupported",
            Self::Superseded => "superseded",
            Self::Load => "load failed",
            Self::Closed => "closed",
        }
    }
}

/// An error with its kind, the tier and key it concerns, and its source. Cheap to clone.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: Arc<str>,
    tier: Option<BackendLabel>,
    key: Option<CacheKey>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` says what a person needs to act.
    pub fn new(kind: ErrorKind, message: impl Into<Arc<str>>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), tier: None, key: None, source: None }))
    }

    /// What a backend reports: [`ErrorKind::Backend`] around its own error.
    pub fn backend(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Backend, "the store reported an error").with_source(source)
    }

    /// What a store that [compares](crate::Backend::compares) answers to an older mutation: [`ErrorKind::Superseded`],
    /// with the stamp of what it holds if it knows it. The engine's clock moves past that stamp.
    pub fn superseded(by: Option<Stamp>) -> Self {
        let error = Self::new(ErrorKind::Superseded, "the store holds a newer entry of the key");
        match by {
            Some(stamp) => error.with_source(Newer(stamp)),
            None => error,
        }
    }

    /// The stamp of the newer entry, of [`Error::superseded`].
    pub fn superseded_by(&self) -> Option<Stamp> {
        self.0.source.as_deref()?.downcast_ref::<Newer>().map(|newer| newer.0)
    }

    /// Adds the underlying error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Names the tier, unless one is named already.
    #[must_use]
    pub fn at_tier(mut self, tier: &BackendLabel) -> Self {
        self.0.tier.get_or_insert_with(|| tier.clone());
        self
    }

    /// Names the key, unless one is named already.
    #[must_use]
    pub fn for_key(mut self, key: &CacheKey) -> Self {
        self.0.key.get_or_insert_with(|| key.clone());
        self
    }

    /// The same error without its key, for logs that must not carry keys.
    #[must_use]
    pub fn redacted(mut self) -> Self {
        self.0.key = None;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The tier it concerns.
    pub fn tier(&self) -> Option<&BackendLabel> {
        self.0.tier.as_ref()
    }

    /// The key it concerns.
    pub fn key(&self) -> Option<&CacheKey> {
        self.0.key.as_ref()
    }

    /// The message without kind, tier and key.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether a deadline passed.
    pub fn is_timeout(&self) -> bool {
        self.kind() == ErrorKind::Timeout
    }

    /// Whether the loader failed; its own error is the source.
    pub fn is_load(&self) -> bool {
        self.kind() == ErrorKind::Load
    }

    /// Whether the same call may succeed later without any change by the caller.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::Timeout
                | ErrorKind::Overloaded
                | ErrorKind::Unavailable
                | ErrorKind::Restarted
                | ErrorKind::Backend
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.kind.as_str())?;
        if let Some(tier) = &self.0.tier {
            write!(f, " at tier `{tier}`")?;
        }
        if let Some(key) = &self.0.key {
            write!(f, " for key `{key}`")?;
        }
        write!(f, ": {}", self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self}")?;
        if let Some(source) = &self.0.source {
            write!(f, "; caused by: {source}")?;
        }
        f.write_str(")")
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

/// The stamp of what superseded a mutation, on its way from the store to the clock.
#[derive(Debug)]
struct Newer(Stamp);

impl fmt::Display for Newer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "written at {} ms by node {:08x}", self.0.wall().as_millis(), self.0.node)
    }
}

impl StdError for Newer {}

impl From<std::io::Error> for Error {
    fn from(source: std::io::Error) -> Self {
        Self::backend(source)
    }
}
