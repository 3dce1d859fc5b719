//! Tierkeep on sim.
