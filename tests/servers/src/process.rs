//! A server's process, which never outlives the test.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Holds its standard input open as long as the test's process lives; then it kills the server and removes its
/// directory. In a process group of its own and deaf to signals from the terminal, so that it is the last to go.
const WATCHDOG: &str = r#"trap "" INT TERM HUP; read -r _; kill -9 "$1"; rm -rf -- "$2""#;

/// A running `redis-server`, killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    server: Child,
    watchdog: Child,
}

impl Process {
    /// Starts it with the configuration file in `dir`.
    pub(crate) fn start(config: &Path, dir: &Path, sentinel: bool) -> io::Result<Self> {
        let mut command = Command::new("redis-server");
        command.arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        if sentinel {
            command.arg("--sentinel");
        }
        let mut server = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::new(
                io::ErrorKind::NotFound,
                "redis-server is missing: install it (Debian: the package redis-server)",
            ),
            _ => error,
        })?;
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "sh", &server.id().to_string()])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match watchdog {
            Ok(watchdog) => Ok(Self { server, watchdog }),
            Err(error) => {
                server.kill()?;
                server.wait()?;
                Err(error)
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.server.id()
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.server.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.ok_or_else(|| io::Error::other("not a process id"))?, signal)?;
        Ok(())
    }

    /// Whether it still runs (paused or not).
    pub(crate) fn runs(&mut self) -> io::Result<bool> {
        Ok(self.server.try_wait()?.is_none())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The watchdog goes before the server is waited for: until then the server's id is not given to another process.
        let _ = self.server.kill();
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        let _ = self.server.wait();
    }
}
