//! Which runtime the connections live on.

use crate::error::{Error, ErrorKind, Result};
use crate::runtime::RuntimeHandle;

/// The driver of a [`RedisBackend`](super::RedisBackend)'s connections: chosen by the application, never detected.
///
/// Each comes with a feature, and both may be compiled and used in one process. The redis crate underneath looks for a
/// tokio runtime where it connects; as this backend connects in tasks of the cache's own runtime, it finds what was
/// chosen. An application must not override that with `redis::aio::prefer_tokio` or `prefer_smol`, which hold for the
/// whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RedisDriver {
    /// tokio's sockets and timers, for caches on `TokioRuntime`.
    #[cfg(feature = "redis-tokio")]
    Tokio,
    /// smol's sockets, for caches on `SmolRuntime` and `AsyncStdRuntime`. smol's global executor runs the connections,
    /// in threads of its own.
    #[cfg(feature = "redis-smol")]
    Smol,
}

impl RedisDriver {
    /// # Errors
    /// [`ErrorKind::Config`] if the connections could not live on `runtime`.
    pub(super) fn suits(self, runtime: &RuntimeHandle) -> Result<()> {
        let name = runtime.name();
        // By its name: nothing else tells runtimes apart before there is any IO.
        let on_tokio = name.contains("tokio");
        let message = match self {
            #[cfg(feature = "redis-tokio")]
            Self::Tokio if !on_tokio => format!(
                "the Redis driver is tokio's, the cache's runtime is `{name}`: choose `RedisDriver::Smol` (feature \
                 `redis-smol`), or build the cache on `TokioRuntime`"
            ),
            #[cfg(feature = "redis-smol")]
            Self::Smol if on_tokio => format!(
                "the Redis driver is smol's, the cache's runtime is `{name}`: choose `RedisDriver::Tokio` (feature \
                 `redis-tokio`), or build the cache on `SmolRuntime` or `AsyncStdRuntime`"
            ),
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Config, message))
    }
}
