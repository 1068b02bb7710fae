//! Real Redis servers for tests: on ports of their own, in directories of their own, ended with the test.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use redis::{FromRedisValue, cmd};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{a_moment, config, soon};
use crate::session::redis::config::{Config, Topology};
use crate::session::redis::connect::connect;
use crate::session::redis::error::Unavailable;

/// A process of Redis. Dropped, it is killed.
pub(super) struct Server {
    pub(super) port: u16,
    pub(super) directory: TempDir,
    program: &'static str,
    options: Vec<String>,
    child: Child,
    /// How a client of full rights gets there.
    admin: Config,
}

impl Server {
    /// One server without persistence.
    pub(super) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// One server with further options.
    pub(super) async fn with(options: &[&str]) -> Self {
        Self::at(free_port(), options).await
    }

    /// One server at a port.
    pub(super) async fn at(port: u16, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut all: Vec<String> =
            ["--port", &port.to_string(), "--bind", "127.0.0.1"].map(str::to_owned).into();
        all.extend(["--save", "", "--appendonly", "no"].map(str::to_owned));
        all.extend(options.iter().map(|&option| option.to_owned()));
        let admin = config(&format!("redis://127.0.0.1:{port}"), Topology::Single);
        Self::run("redis-server", port, directory, all, admin).await
    }

    /// A Sentinel that watches the server at `master`.
    pub(super) async fn sentinel(master: u16, extra: &str) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = directory.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n{extra}\n"
        );
        std::fs::write(&file, text).unwrap();
        let options = vec![file.to_str().unwrap().to_owned(), "--sentinel".to_owned()];
        let admin = config(&format!("redis://127.0.0.1:{port}"), Topology::Single);
        Self::run("redis-server", port, directory, options, admin).await
    }

    /// A server that is only reached otherwise than by plain TCP.
    pub(super) async fn reached_by(options: &[String], directory: TempDir, port: u16, admin: Config) -> Self {
        let mut all = ["--bind", "127.0.0.1", "--save", ""].map(str::to_owned).to_vec();
        all.extend_from_slice(options);
        Self::run("redis-server", port, directory, all, admin).await
    }

    async fn run(
        program: &'static str,
        port: u16,
        directory: TempDir,
        options: Vec<String>,
        admin: Config,
    ) -> Self {
        let child = spawn(program, directory.path(), &options);
        let server = Self { port, directory, program, options, child, admin };
        server.answers().await;
        server
    }

    /// What a client is to be told.
    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends one command with full rights.
    pub(super) async fn call<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_call(words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    async fn try_call<T: FromRedisValue>(&self, words: &[&str]) -> Result<T, Unavailable> {
        let mut command = cmd(words[0]);
        command.arg(&words[1..]);
        connect(&self.admin).await?.run(&command).await
    }

    async fn answers(&self) {
        let until = async {
            while self.try_call::<String>(&["PING"]).await.is_err() {
                a_moment().await;
            }
        };
        soon("an answer of Redis", until).await;
    }

    /// Stops the process where it stands: connections stay, and nothing answers.
    pub(super) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(super) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts a server that was killed again, at its port, in its directory.
    pub(super) async fn start_again(&mut self) {
        self.child = spawn(self.program, self.directory.path(), &self.options);
        self.answers().await;
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &str, directory: &Path, options: &[String]) -> Child {
    let mut command = Command::new(program);
    command
        .current_dir(directory)
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; run tests/tools.sh"))
}

/// A port that nobody listens on, and that no other test of this process gets: below those that the kernel
/// gives to connections, also with the 10,000 that a cluster's bus adds.
pub(super) fn free_port() -> u16 {
    const FIRST: u16 = 11_000;
    const COUNT: u16 = 8_000;
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let seed = std::process::id().wrapping_mul(2_654_435_761) >> 8;
        AtomicU16::new((seed % u32::from(COUNT)) as u16)
    });
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
    panic!("no port from {FIRST} on is free");
}
