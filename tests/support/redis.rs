//! A real Redis, by itself: on a port and in a directory of its own.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::ports::free_port;
use super::soon;

/// A server. Killed when dropped.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    directory: TempDir,
    child: Child,
}

impl Redis {
    /// Starts one that keeps nothing on disk.
    pub async fn start() -> Self {
        let (port, directory) = (free_port(), TempDir::new().unwrap());
        let child = spawn(port, &directory);
        let redis = Self { port, directory, child };
        redis.answers().await;
        redis
    }

    /// What `session.redis.url` is to be.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends one command of plain words, and returns what comes first.
    pub async fn call(&self, command: &str) -> Option<String> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        connection.write_all(format!("{command}\r\n").as_bytes()).await.ok()?;
        let mut answer = vec![0; 4096];
        let length = connection.read(&mut answer).await.ok()?;
        (length > 0).then(|| String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    /// Everything that is in it, as a dump would have it.
    pub async fn dump(&self) -> Vec<u8> {
        self.call("SAVE").await.expect("saved");
        std::fs::read(self.directory.path().join("dump.rdb")).unwrap()
    }

    /// Stops the process where it stands: connections stay, and nothing answers.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it, as a crash does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, empty.
    pub async fn start_again(&mut self) {
        self.child = spawn(self.port, &self.directory);
        self.answers().await;
    }

    async fn answers(&self) {
        let up = async {
            while self.call("PING").await.is_none_or(|answer| !answer.contains("PONG")) {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        soon("an answer of Redis", up).await;
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, directory: &TempDir) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server of Debian; tests/tools.sh installs it")
}
