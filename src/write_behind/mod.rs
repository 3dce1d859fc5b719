//! Write-behind: a tier whose writes are acknowledged once they are queued, and brought to its store in the background.
//!
//! ```
//! use std::time::Duration;
//! use tierkeep::write_behind::{Overload, WriteBehind};
//! use tierkeep::{Cache, MemoryBackend, Region, Tier};
//! use tierkeep_smol::SmolRuntime;
//!
//! # fn main() -> tierkeep::Result<()> {
//! # smol::block_on(async {
//! let store = MemoryBackend::entries(100_000).label("store"); // stands for a slow one
//! let behind = WriteBehind::memory().max_delay(Duration::from_millis(20)).overload(Overload::Reject);
//! let cache = Cache::builder(SmolRuntime::new())
//!     .tier(MemoryBackend::entries(1_000))
//!     .tier(Tier::new(store).write_behind(behind))
//!     .build()
//!     .await?;
//! let names: Region<String, u64> = cache.region("name").no_expiry().build()?;
//!
//! names.set(&7, "Ada".to_owned()).await?; // returns before the store has it; every read sees it
//! cache.flush(Duration::from_secs(5)).await?; // now the store has it
//! # cache.shutdown(Duration::from_secs(5)).await;
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! What is queued is part of the tier: reads of it see a pending value until the store has confirmed it. Of several
//! writes of a key the newest is sent. Nothing that was accepted is lost in silence: it is applied, superseded by a newer
//! write of its key (or a clear), handed to the [`DeadLetterSink`], or still queued, and [`inspect`](crate::Cache::inspect)
//! counts each.

mod dead_letter;
#[cfg(feature = "disk")]
pub(crate) mod journal;
mod keeper;
mod letter_channel;
mod letter_file;
mod letters;
mod options;

pub use dead_letter::{DeadLetter, DeadLetterSink, DeadReason, LogLetters, Redriven};
#[cfg(all(feature = "disk", feature = "testing"))]
pub use journal::SimulatedLog;
#[cfg(feature = "disk")]
pub use journal::{JournalReport, JournalStatus, JournalSync};
pub(crate) use keeper::{Keeper, Recovered, Written};
pub use letter_channel::{ChannelLetters, LetterReceiver};
pub use letter_file::{FileLetters, LetterReader};
pub(crate) use letters::Letters;
pub(crate) use options::WriteBehindOptions;
pub use options::{Overload, Retry, WriteBehind};
