//! Fault injection: a backend that fails in every way a store fails, when and as often as a test says.
//!
//! It runs on any runtime. Under the simulator its delays are virtual and its choices repeat with the seed.
//!
//! ```
//! use tierkeep::runtime::RuntimeHandle;
//! use tierkeep::{Backend, CacheKey};
//! use tierkeep_sim::{Fault, FaultPlan, Faulty, MapBackend, Sim};
//!
//! let sim = Sim::new(7);
//! let runtime = RuntimeHandle::new(sim.runtime());
//! let plan = FaultPlan::new(&runtime);
//! let backend = Faulty::new(MapBackend::new(), &runtime, &plan);
//! let key = CacheKey::new("user", 1, []);
//!
//! plan.next(Fault::Error, 1);
//! assert!(sim.block_on(backend.read(&key)).unwrap().is_err());
//! assert!(sim.block_on(backend.read(&key)).unwrap().is_ok());
//! assert_eq!(plan.count(Fault::Error), 1);
//! ```

mod backend;
mod call;
mod plan;

pub use backend::Faulty;
pub use plan::{Fault, FaultPlan, Op};
