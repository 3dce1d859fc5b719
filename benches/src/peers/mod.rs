//! The peers and Tierkeep itself, set up as their users would who want the best of each.

pub mod bytes;
pub mod cachet;
pub mod hitbox;
pub mod tierkeep;
