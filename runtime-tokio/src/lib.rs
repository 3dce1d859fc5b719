//! Tierkeep on tokio.
