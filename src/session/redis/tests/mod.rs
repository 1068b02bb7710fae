//! The store against real servers.

mod leases;
mod outages;
mod records;
mod revocations;
mod server;
mod sessions;
mod topologies;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::*;
use crate::clock::{Clock, UnixTime};
use crate::secret::{Secret, Source};
use crate::session::seal::Binding;

/// Longest wait for anything that should happen soon.
const PATIENCE: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(600);

/// A store with whatever is told to it.
struct Process {
    store: Arc<Store>,
    events: Arc<Mutex<Vec<Event>>>,
    memory: Arc<Memory>,
    connection: JoinHandle<()>,
}

/// What a process knows to have ended.
#[derive(Default)]
struct Memory(Mutex<HashSet<Heard>>);

impl Endings for Memory {
    fn learn(&self, heard: Heard) {
        self.0.lock().unwrap().insert(heard);
    }

    fn known(&self) -> Vec<Ending> {
        let all = self.0.lock().unwrap();
        let endings = all.iter().filter_map(|heard| match heard {
            Heard::Ending(ending) => Some(ending.clone()),
            Heard::AllBefore(_) => None,
        });
        endings.collect()
    }
}

impl Process {
    /// A process whose store may or may not get anywhere.
    fn started(config: Config) -> Self {
        let (events, memory) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Memory::default()));
        let told = events.clone();
        let hear: Events = Arc::new(move |event| told.lock().unwrap().push(event));
        let store = Store::new(config, Handle::current(), hear).unwrap();
        let connection = tokio::spawn(store.clone().keep_connected(memory.clone()));
        Self { store, events, memory, connection }
    }

    /// A process whose store works.
    async fn connected(config: Config) -> Self {
        let process = Self::started(config);
        process.works().await;
        process
    }

    async fn works(&self) {
        let until = async {
            while self.store.outage().is_some() {
                a_moment().await;
            }
        };
        soon("the store", until).await;
    }

    /// Waits for an outage of a certain kind.
    async fn fails_with(&self, wanted: impl Fn(&Unavailable) -> bool) -> Unavailable {
        let until = async {
            loop {
                match self.store.outage() {
                    Some(outage) if wanted(&outage) => return outage,
                    _ => a_moment().await,
                }
            }
        };
        match tokio::time::timeout(PATIENCE, until).await {
            Ok(outage) => outage,
            Err(_) => panic!("waited in vain for an outage; it is {:?}", self.store.outage()),
        }
    }

    async fn knows(&self, ending: &Ending) {
        let until = async {
            while !self.memory.known().contains(ending) {
                a_moment().await;
            }
        };
        soon("a revocation", until).await;
    }

    /// Ends something, as its owner does: first in memory.
    async fn end(&self, ending: &Ending) -> Result<(), Unavailable> {
        self.memory.learn(Heard::Ending(ending.clone()));
        self.store.end(ending.clone()).await
    }

    fn told(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn config(url: &str, topology: Topology) -> Config {
    Config { url: Source::Inline(Secret::new(url.to_owned())), topology, authorities: None }
}

fn single(server: &server::Server) -> Config {
    config(&server.url(), Topology::Single)
}

fn scope(service: &str) -> Scope {
    let [host, issuer, client_id] =
        ["app.example.com", "https://idp.example.com", "client"].map(str::to_owned);
    Scope::new(&Binding { service: service.to_owned(), host, issuer, client_id })
}

fn ending(entry: &str, lives: Duration) -> Ending {
    let expires_at = Clock::system().now().plus(lives);
    Ending { scope: scope("app").id(), entry: entry.as_bytes().to_vec(), expires_at }
}

/// The command that makes the user of the documentation; its third word is the name, `PASSWORD` the password.
fn documented_user() -> Vec<&'static str> {
    let text = include_str!("../../../../docs/sessions-redis.md");
    let rule = text.lines().find(|line| line.starts_with("ACL SETUSER ")).unwrap();
    rule.split_whitespace().collect()
}

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// Between two looks at something that is awaited: whoever is waited for needs the processor.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}
