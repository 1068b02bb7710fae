//! Makes a connection: reads the address, finds the master where Sentinels know it, logs in.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, TlsCertificates, TlsMode,
};
use tokio::task::JoinSet;

use super::address::{Address, Node};
use super::config::{Config, Topology};
use super::error::Unavailable;
use super::link::{Link, in_time, meaning};
use super::{COMMAND_DEADLINE, CONNECT_DEADLINE};

/// A connection as the configuration and its files say now.
pub(super) async fn connect(config: &Config) -> Result<Link, Unavailable> {
    let files = config.clone();
    // A slow disk must not stop the runtime that answers probes.
    let read = tokio::task::spawn_blocking(move || Ok((files.address()?, files.authorities()?)));
    let (address, authorities) = read
        .await
        .map_err(|_| Unavailable::Stopping)?
        .map_err(|error: super::config::ConfigError| Unavailable::Address(error.to_string()))?;
    let way = Way { address, authorities };
    match &config.topology {
        Topology::Single => {
            let node = way.address.nodes.first().ok_or(Unavailable::NotYet)?;
            way.to(node, Login::Ours).await.map(Link::One)
        }
        Topology::Sentinel { master } => way.to_master(master).await.map(Link::One),
        Topology::Cluster => way.to_cluster().await,
    }
}

/// Everything that a connection is made with.
#[derive(Clone)]
struct Way {
    address: Address,
    authorities: Option<Vec<u8>>,
}

/// Whether a server is told user and password.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Login {
    Ours,
    None,
}

impl Way {
    async fn to(&self, node: &Node, login: Login) -> Result<MultiplexedConnection, Unavailable> {
        let client = self.client(node, login).map_err(|error| meaning(&error))?;
        let options = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_DEADLINE))
            .set_response_timeout(Some(COMMAND_DEADLINE));
        let connecting = client.get_multiplexed_async_connection_with_config(&options);
        match tokio::time::timeout(CONNECT_DEADLINE, connecting).await {
            Ok(connected) => connected.map_err(|error| self.failure(node, &error)),
            Err(_) => Err(Unavailable::Slow(CONNECT_DEADLINE)),
        }
    }

    fn client(&self, node: &Node, login: Login) -> Result<Client, RedisError> {
        let info = self.info(node, login)?;
        match (&self.authorities, self.address.tls) {
            (Some(_), true) => Client::build_with_tls(info, self.certificates()),
            _ => Client::open(info),
        }
    }

    fn info(&self, node: &Node, login: Login) -> Result<ConnectionInfo, RedisError> {
        let address = match node.clone() {
            Node::Unix(path) => ConnectionAddr::Unix(path),
            Node::Tcp { host, port } if self.address.tls => {
                ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
            }
            Node::Tcp { host, port } => ConnectionAddr::Tcp(host, port),
        };
        let mut settings = RedisConnectionInfo::default();
        if login == Login::Ours {
            settings = settings.set_db(self.address.database);
            if let Some(user) = &self.address.user {
                settings = settings.set_username(user);
            }
            if let Some(password) = &self.address.password {
                settings = settings.set_password(password.expose());
            }
        }
        Ok(address.into_connection_info()?.set_redis_settings(settings))
    }

    fn certificates(&self) -> TlsCertificates {
        TlsCertificates { client_tls: None, root_cert: self.authorities.clone() }
    }

    /// Asks all Sentinels at once and believes most of those that answer: one that was cut off may still name
    /// the old master. Whether it really is one, the first write shows.
    async fn to_master(&self, name: &str) -> Result<MultiplexedConnection, Unavailable> {
        let mut asked = JoinSet::new();
        for node in &self.address.nodes {
            let (this, node, name) = (self.clone(), node.clone(), name.to_owned());
            asked.spawn(async move { this.master_at(&node, &name).await });
        }
        let mut votes: HashMap<(String, u16), usize> = HashMap::new();
        let mut failure = None;
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok(Some(master))) => *votes.entry(master).or_default() += 1,
                Ok(Ok(None)) => {}
                Ok(Err(error)) => failure = Some(error),
                Err(_) => failure = Some(Unavailable::Stopping),
            }
        }
        let elected = votes.into_iter().max_by_key(|(_, votes)| *votes);
        let Some(((host, port), _)) = elected else {
            return Err(failure.unwrap_or_else(|| Unavailable::NoMaster(name.to_owned())));
        };
        self.to(&Node::Tcp { host, port }, Login::Ours).await
    }

    /// What one Sentinel takes for the master. It is told the password only if it wants one.
    async fn master_at(&self, sentinel: &Node, name: &str) -> Result<Option<(String, u16)>, Unavailable> {
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let mut link = self.to(sentinel, Login::None).await?;
        match in_time(COMMAND_DEADLINE, ask.query_async(&mut link)).await {
            Err(Unavailable::Credentials) => {
                let mut link = self.to(sentinel, Login::Ours).await?;
                in_time(COMMAND_DEADLINE, ask.query_async(&mut link)).await
            }
            answer => answer,
        }
    }

    async fn to_cluster(&self) -> Result<Link, Unavailable> {
        let nodes: Result<Vec<_>, _> =
            self.address.nodes.iter().map(|node| self.info(node, Login::Ours)).collect();
        let mut builder = ClusterClientBuilder::new(nodes.map_err(|error| meaning(&error))?)
            .connection_timeout(CONNECT_DEADLINE)
            .response_timeout(COMMAND_DEADLINE)
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(CLUSTER_RETRY_WAIT.0)
            .max_retry_wait(CLUSTER_RETRY_WAIT.1);
        if self.address.tls {
            builder = builder.tls(TlsMode::Secure);
            if self.authorities.is_some() {
                builder = builder.certs(self.certificates());
            }
        }
        let client = builder.build().map_err(|error| meaning(&error))?;
        match tokio::time::timeout(CONNECT_DEADLINE, client.get_async_connection()).await {
            Ok(connected) => connected.map(Link::Cluster).map_err(|error| {
                self.address.nodes.first().map_or_else(|| meaning(&error), |node| self.failure(node, &error))
            }),
            Err(_) => Err(Unavailable::Slow(CONNECT_DEADLINE)),
        }
    }

    /// Why a connection could not be made.
    fn failure(&self, node: &Node, error: &RedisError) -> Unavailable {
        match meaning(error) {
            Unavailable::Broken if self.address.tls && !error.is_connection_refusal() => {
                Unavailable::Tls(error.to_string())
            }
            Unavailable::Broken => {
                Unavailable::Unreachable { at: node.to_string(), reason: error.to_string() }
            }
            other => other,
        }
    }
}

/// How often a command is repeated in a cluster: once to be told the right node, and once if that has moved.
const CLUSTER_RETRIES: u32 = 3;
/// The pause before that, in milliseconds: at least, at most.
const CLUSTER_RETRY_WAIT: (u64, u64) = (10, 100);
