//! What the side-by-side benches share: the harness that runs one side after the other, the values that both sides
//! hold, and the peers as their users would set them up.
//!
//! A bench binary is a list of [`Measure`]s given to [`main`]; `benches/peers/main.rs` is one.

mod arguments;
pub mod clock;
mod contest;
pub mod echo;
mod measure;
pub mod micro;
mod output;
pub mod peers;
pub mod process;
mod report;
pub mod trace;
pub mod values;

pub use contest::{Contest, Sampled};
pub use measure::{Measure, Outcome, Setting, Skipped, main};
pub use report::{Comparison, Unit};
