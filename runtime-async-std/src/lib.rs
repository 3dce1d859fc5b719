//! Tierkeep on async-std.
