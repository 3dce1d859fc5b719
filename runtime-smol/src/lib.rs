//! Tierkeep on smol.
