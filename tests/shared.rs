//! Several caches over one store, as processes that share it: what each may show, and what the store holds in the end.
//!
//! All run in the simulator, over a store that compares stamps and over one that does not.

#[path = "shared/backplane.rs"]
mod backplane;
#[path = "shared/bounds.rs"]
mod bounds;
#[path = "shared/compare.rs"]
mod compare;
#[path = "shared/history.rs"]
mod history;
#[path = "shared/options.rs"]
mod options;
#[path = "shared/world.rs"]
mod world;
