//! A process under test, as its parent holds it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest that an older value may show once a change has been confirmed: `silence` + `heartbeat` + `jitter`.
pub(crate) const BOUND: Duration = Duration::from_millis(4500);

/// The same for what a process keeps in its memory while it hears nobody: `fallback_cap`.
pub(crate) const FALLBACK: Duration = Duration::from_secs(30);

/// A line of a child's that is for its parent: the test harness says things too.
pub(crate) const MARK: &str = "coherence: ";

pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// What a child is to do, by its environment.
pub(crate) struct Orders<'a> {
    pub(crate) url: &'a str,
    pub(crate) namespace: &'a str,
    /// `tokio` or `smol`.
    pub(crate) runtime: &'a str,
    pub(crate) backplane: bool,
    /// The cap of the memory tier, in ms; 0: the default.
    pub(crate) cap: u64,
}

impl Process {
    pub(crate) fn start(orders: &Orders<'_>) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::a_process", "--ignored", "--nocapture", "--test-threads=1"])
            .env("TIERKEEP_COHERENCE_URL", orders.url)
            .env("TIERKEEP_COHERENCE_NAMESPACE", orders.namespace)
            .env("TIERKEEP_COHERENCE_RUNTIME", orders.runtime)
            .env("TIERKEEP_COHERENCE_BACKPLANE", if orders.backplane { "1" } else { "0" })
            .env("TIERKEEP_COHERENCE_CAP", orders.cap.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut process = Self { child, input, output };
        assert_eq!(process.hear(), "ready");
        process
    }

    /// Sends a command without waiting.
    pub(crate) fn say(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
        self.input.flush().unwrap();
    }

    /// The next line that is for us.
    pub(crate) fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the child ended");
            // The harness begins a line with the test's name.
            if let Some(at) = line.find(MARK) {
                return line[at + MARK.len()..].trim_end().to_owned();
            }
        }
    }

    /// Sends a command and waits for its answer.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.say(command);
        self.hear()
    }

    /// The answer as a number.
    pub(crate) fn ask_number(&mut self, command: &str) -> u64 {
        let answer = self.ask(command);
        answer.parse().unwrap_or_else(|_| panic!("`{command}` was answered `{answer}`"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its own: nobody else waits for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nanoseconds of the machine's clock, which all processes share.
pub(crate) fn clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos()).unwrap()
}
