//! The lock-free parts of Tierkeep's order under loom, which plays every interleaving of a few threads, and everything
//! that the memory model lets them see.
//!
//! The files of the engine are built as they are, with loom's atomics for `crate::sync`. Each model is played as it
//! should be, which must find nothing, and with a rule taken out, which must be found: `cargo run --release` here ends
//! with `models=… interleavings=… caught=…/…` and exit code 0.

mod engine;
mod models;
#[expect(dead_code, reason = "the engine uses all of it, the models some")]
mod order;

// Where the engine's files look for them.
use engine::{backend, planted, runtime, sync, value};

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use models::Model;

fn main() -> ExitCode {
    // What a planted bug is caught by; failures of sound models are told below.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut interleavings, mut failed, mut planted, mut caught) = (0, 0, 0, 0);
    for Model { name, sound, play } in models::ALL {
        let played = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&played);
        let explore = move || {
            let once = play();
            loom::model(move || {
                count.fetch_add(1, Ordering::Relaxed);
                once();
            });
        };
        // On a thread of its own: loom's state ends with it, and so does the planted bug.
        #[expect(clippy::disallowed_methods, reason = "there is no runtime here")]
        let outcome = std::thread::spawn(explore).join();
        let played = played.load(Ordering::Relaxed);
        interleavings += played;
        let message = outcome.as_ref().err().map(|panic| message(&**panic)).unwrap_or_default();
        match (sound, outcome.is_ok()) {
            (true, true) => println!("{name}: {played} interleavings"),
            (true, false) => {
                failed += 1;
                println!("{name}: FAILED at interleaving {played}: {message}");
            }
            (false, found_nothing) => {
                planted += 1;
                caught += u64::from(!found_nothing);
                let what = if found_nothing { "NOT caught after" } else { "caught at" };
                println!("{name}: {what} interleaving {played} {message}");
            }
        }
    }
    println!("models={} interleavings={interleavings} caught={caught}/{planted}", models::ALL.len());
    if failed == 0 && caught == planted { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic")
        .lines()
        .next()
        .unwrap_or("")
        .to_owned()
}
