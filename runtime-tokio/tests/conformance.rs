//! The engine's conformance suite, on every flavour of tokio runtime, and on a paused clock.

use tierkeep::runtime::conformance::Case;
use tierkeep_tokio::TokioRuntime;
use tokio::runtime::Builder;

fn run(mut builder: Builder, case: Case) {
    let runtime = builder.enable_time().build().expect("a runtime");
    runtime.block_on(case(TokioRuntime::new(runtime.handle().clone()).into()));
}

mod multi_thread {
    tierkeep::runtime_conformance!(|case| crate::run(tokio::runtime::Builder::new_multi_thread(), case));
}

mod current_thread {
    tierkeep::runtime_conformance!(|case| crate::run(tokio::runtime::Builder::new_current_thread(), case));
}

/// Tokio moves the clock whenever nothing else is to be done.
mod paused {
    tierkeep::runtime_conformance!(|case| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.start_paused(true);
        crate::run(builder, case);
    });
}

/// The engine's own host on tokio's threads: the same behaviour as on kameo.
mod flume_host {
    use tierkeep::Timestamp;
    use tierkeep::runtime::{BlockingJob, BoxFuture, Instant, Runtime};
    use tierkeep_tokio::TokioRuntime;

    #[derive(Debug)]
    struct OnFlume(TokioRuntime);

    impl Runtime for OnFlume {
        fn name(&self) -> &'static str {
            self.0.name()
        }

        fn execute(&self, task: BoxFuture<'static, ()>) {
            self.0.execute(task);
        }

        fn execute_blocking(&self, job: BlockingJob) {
            self.0.execute_blocking(job);
        }

        fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
            self.0.sleep_until(deadline)
        }

        fn now(&self) -> Instant {
            self.0.now()
        }

        fn wall(&self) -> Timestamp {
            self.0.wall()
        }

        fn random(&self) -> u64 {
            self.0.random()
        }
    }

    tierkeep::runtime_conformance!(|case| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().expect("a runtime");
        runtime.block_on(case(OnFlume(TokioRuntime::new(runtime.handle().clone())).into()));
    });
}
