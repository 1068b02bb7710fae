//! The binary as an operator runs it: a child process with a configuration file, a state directory and a log.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use super::secrets::Secrets;
use super::soon;

/// A running `portcullis run`. Dropping it sends SIGTERM and demands exit code 0.
#[derive(Debug)]
pub struct Proxy {
    process: Process,
    state: Arc<TempDir>,
    /// What must never be seen: added to by whoever learns a secret.
    pub secrets: Secrets,
    /// The admin listener, whose pages are looked at in the end.
    pub admin: Option<u16>,
}

/// The environment variable whose value is an option of prlimit, with which the process is started.
const LIMITED: &str = "STARTED_WITH_PRLIMIT";

/// How `portcullis` ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` when a signal killed it.
    pub code: Option<i32>,
    /// Everything on standard output.
    pub stdout: String,
    /// Everything on standard error.
    pub stderr: String,
}

impl Proxy {
    /// Starts with a configuration file of this text, and waits until it serves.
    pub async fn start(config: &str) -> Result<Self, Finished> {
        Self::start_in(Arc::new(TempDir::new().unwrap()), config, &[]).await
    }

    /// Starts with the state directory of an earlier run.
    pub async fn start_in(
        state: Arc<TempDir>,
        config: &str,
        environment: &[(&str, &str)],
    ) -> Result<Self, Finished> {
        let file = state.path().join("portcullis.yaml");
        std::fs::write(&file, config).unwrap();
        let started = |line: &str| line.contains("\"event\":\"started\"");
        Self::launch(state, &["run", "-c", file.to_str().unwrap()], environment, started).await
    }

    /// Starts where a process may have no more than so many files open.
    pub async fn start_limited(state: Arc<TempDir>, config: &str, files: usize) -> Result<Self, Finished> {
        let files = format!("--nofile={files}");
        Self::start_in(state, config, &[(LIMITED, &files)]).await
    }

    /// Starts any command that runs until it is told to end, and waits for a line of its output.
    pub async fn launch(
        state: Arc<TempDir>,
        arguments: &[&str],
        environment: &[(&str, &str)],
        started: impl Fn(&str) -> bool,
    ) -> Result<Self, Finished> {
        let mut process = Process::spawn(arguments, state.path(), environment);
        let mut lines = process.lines.clone();
        let ended = soon("a line that says that it serves, or the end of the process", async {
            let wanted = |log: &LogLines| log.ended || log.text.iter().any(|line| started(line));
            let log = lines.wait_for(wanted).await.unwrap();
            !log.text.iter().any(|line| started(line))
        })
        .await;
        if ended {
            return Err(process.finish().await);
        }
        Ok(Self { process, state, secrets: Secrets::default(), admin: None })
    }

    /// Waits for a log line.
    pub async fn line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut lines = self.process.lines.clone();
        let log = soon(what, lines.wait_for(|log| log.ended || log.has(&wanted))).await.unwrap();
        let found = log.json().find(|line| wanted(line));
        found.unwrap_or_else(|| panic!("portcullis ended without writing {what}"))
    }

    /// Waits for an event of this name.
    pub async fn event(&self, name: &str) -> Value {
        self.line(&format!("event {name}"), |line| line["event"] == name).await
    }

    /// Waits for the record of the request with this id.
    pub async fn record(&self, request_id: &str) -> Value {
        let wanted = |line: &Value| line["requestId"] == request_id && line["status"].is_number();
        self.line(&format!("the record of {request_id}"), wanted).await
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most resident memory since the start, or since [`Self::forget_peak`].
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// From now on, only later peaks count.
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.process.id), "5").unwrap();
    }

    /// How many files it has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id)).unwrap().count()
    }

    /// What it has taken of the processors, to the hundredth of a second.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id)).unwrap();
        // The fields after the name, which is in parentheses: state is the first, utime and stime are 12 and 13.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id)).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.process.signal("TERM");
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn stop(mut self) -> Finished {
        self.terminate();
        self.process.finish().await
    }

    /// Kills it, as a machine that loses power would.
    pub async fn kill(mut self) {
        self.process.signal("KILL");
        assert_eq!(self.process.finish().await.code, None, "it was not killed");
    }

    /// Waits for the end.
    pub async fn finished(mut self) -> Finished {
        self.process.finish().await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if self.process.ended.is_some() {
            if !std::thread::panicking() {
                self.assert_secrecy(&self.process.everything());
            }
            return;
        }
        self.admin.into_iter().for_each(|port| show_admin_pages(port, &self.secrets));
        self.process.signal("TERM");
        let code = self.process.wait(Duration::from_secs(15));
        let log = self.process.everything();
        if std::thread::panicking() {
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("portcullis ended with {code:?}; the last lines that it wrote:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
            return;
        }
        assert_eq!(code, Some(0), "SIGTERM ends it with code 0; it wrote:\n{log}");
        self.assert_secrecy(&log);
    }
}

impl Proxy {
    /// OPS-03: nothing secret was written or shown, from the start to the end.
    fn assert_secrecy(&self, log: &str) {
        self.secrets.add_keys(self.state.path());
        assert_eq!(self.secrets.found_in(log), None, "a secret in the log:\n{log}");
        assert_eq!(self.secrets.found_in_shown(), None, "a secret in an answer");
    }
}

/// Keeps what the admin listener shows. It may be gone already, or want a token.
fn show_admin_pages(port: u16, secrets: &Secrets) {
    for path in ["/healthz", "/readyz", "/metrics", "/config", "/flows"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let mut answer = Vec::new();
        if stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut answer)).is_ok() {
            secrets.shown(path.to_owned(), String::from_utf8_lossy(&answer).into_owned());
        }
    }
}

/// Runs `portcullis` with these arguments to its end.
pub async fn portcullis(arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let directory = TempDir::new().unwrap();
    let mut process = Process::spawn(arguments, directory.path(), environment);
    process.finish().await
}

/// Runs `portcullis run` with a configuration that it should refuse.
pub async fn refused(config: &str) -> Finished {
    match Proxy::start(config).await {
        Err(finished) => finished,
        Ok(_) => panic!("started with a configuration that is wrong:\n{config}"),
    }
}

/// A child process whose output is read to the end.
#[derive(Debug)]
struct Process {
    id: u32,
    lines: watch::Receiver<LogLines>,
    status: Receiver<ExitStatus>,
    readers: Vec<JoinHandle<()>>,
    errors: Arc<std::sync::Mutex<String>>,
    ended: Option<Option<i32>>,
}

/// Standard output so far.
#[derive(Debug, Default)]
struct LogLines {
    text: Vec<String>,
    ended: bool,
}

impl LogLines {
    fn json(&self) -> impl Iterator<Item = Value> {
        self.text.iter().filter_map(|line| serde_json::from_str(line).ok())
    }

    fn has(&self, wanted: impl Fn(&Value) -> bool) -> bool {
        self.json().any(|line| wanted(&line))
    }
}

impl Process {
    fn spawn(arguments: &[&str], state: &Path, environment: &[(&str, &str)]) -> Self {
        let program = env!("CARGO_BIN_EXE_portcullis");
        let limit = environment.iter().find(|(name, _)| *name == LIMITED);
        let mut command = Command::new(limit.map_or(program, |_| "prlimit"));
        if let Some((_, files)) = limit {
            command.args([*files, program]);
        }
        let mut child = command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .env("STATE_DIRECTORY", state)
            .env("XDG_STATE_HOME", state)
            .env("HOME", state)
            // Where a build that measures coverage writes what it counted.
            .envs(std::env::var_os("LLVM_PROFILE_FILE").map(|pattern| ("LLVM_PROFILE_FILE", pattern)))
            .envs(environment.iter().copied())
            .current_dir(state)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = watch::channel(LogLines::default());
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let output = std::thread::spawn(move || {
            for line in stdout.lines() {
                let line = line.unwrap_or_else(|error| format!("not UTF-8: {error}"));
                sender.send_modify(|log| log.text.push(line));
            }
            sender.send_modify(|log| log.ended = true);
        });
        let errors = Arc::new(std::sync::Mutex::new(String::new()));
        let (mut stderr, kept) = (child.stderr.take().unwrap(), errors.clone());
        let diagnostics = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            *kept.lock().unwrap() = String::from_utf8_lossy(&text).into_owned();
        });
        let id = child.id();
        let status = reap(child);
        Self { id, lines, status, readers: vec![output, diagnostics], errors, ended: None }
    }

    fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.id);
        let _ = Command::new("sh").args(["-c", &command]).stderr(Stdio::null()).status();
    }

    /// The exit code. What does not end in time is killed, and has none.
    fn wait(&mut self, patience: Duration) -> Option<i32> {
        if let Some(code) = self.ended {
            return code;
        }
        let code = match self.status.recv_timeout(patience) {
            Ok(status) => status.code(),
            Err(RecvTimeoutError::Timeout) => {
                self.signal("KILL");
                let _ = self.status.recv();
                None
            }
            Err(RecvTimeoutError::Disconnected) => None,
        };
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        self.ended = Some(code);
        code
    }

    async fn finish(&mut self) -> Finished {
        let mut lines = self.lines.clone();
        let ended = lines.wait_for(|log| log.ended);
        let waited = tokio::time::timeout(Duration::from_secs(40), ended).await;
        assert!(waited.is_ok_and(|ended| ended.is_ok()), "the process has not ended:\n{}", self.everything());
        let code = self.wait(Duration::from_secs(5));
        let stdout = self.lines.borrow().text.join("\n");
        Finished { code, stdout, stderr: self.errors.lock().unwrap().clone() }
    }

    fn everything(&self) -> String {
        format!("{}\n{}", self.lines.borrow().text.join("\n"), self.errors.lock().unwrap())
    }
}

fn reap(mut child: Child) -> Receiver<ExitStatus> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        if let Ok(status) = child.wait() {
            let _ = sender.send(status);
        }
    });
    receiver
}
