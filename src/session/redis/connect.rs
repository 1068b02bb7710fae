//! Makes a connection: reads the address, finds the master where Sentinels know it, logs in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo,
    RedisError, TlsCertificates, TlsMode,
};
use rustls::ClientConfig;
use tokio::task::JoinSet;

use super::address::{Address, Node};
use super::config::{Config, ConfigError, Topology};
use super::dial::{dial, tls_config};
use super::error::Unavailable;
use super::link::{Link, in_time, meaning};
use super::{COMMAND_DEADLINE, CONNECT_DEADLINE};
use crate::web::trust::Trust;

/// A connection as the configuration and its files say now.
pub(super) async fn connect(config: &Config) -> Result<Link, Unavailable> {
    let files = config.clone();
    // A slow disk must not stop the runtime that answers probes.
    let read = tokio::task::spawn_blocking(move || Way::read(&files));
    let way = read.await.map_err(|_| Unavailable::Stopping)??;
    match &config.topology {
        Topology::Single => {
            let node = way.address.nodes.first().ok_or(Unavailable::NotYet)?;
            way.to(node, Login::Ours).await
        }
        Topology::Sentinel { master } => way.to_master(master).await,
        Topology::Cluster => way.to_cluster().await,
    }
}

/// Everything that a connection is made with.
#[derive(Clone)]
struct Way {
    address: Address,
    authorities: Option<Vec<u8>>,
    tls: Option<Arc<ClientConfig>>,
}

/// Whether a server is told user and password.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Login {
    Ours,
    None,
}

impl Way {
    fn read(config: &Config) -> Result<Self, Unavailable> {
        let unusable = |error: ConfigError| Unavailable::Configuration(error.to_string());
        let address = config.address().map_err(unusable)?;
        let authorities = config.authorities().map_err(unusable)?;
        let tls = match (&authorities, address.tls) {
            (_, false) => None,
            (None, true) => Some(tls_config(&Trust::system())?),
            (Some(pem), true) => {
                let trust = Trust::only(pem).map_err(|error| unusable(error.into()))?;
                Some(tls_config(&trust)?)
            }
        };
        Ok(Self { address, authorities: authorities.map(String::into_bytes), tls })
    }

    async fn to(&self, node: &Node, login: Login) -> Result<Link, Unavailable> {
        let settings = self.settings(login);
        let connecting = async {
            let stream = dial(node, self.tls.as_ref()).await?;
            // The deadlines are ours.
            let options = AsyncConnectionConfig::new().set_response_timeout(None);
            let connected = MultiplexedConnection::new_with_config(&settings, stream, options).await;
            let (connection, driver) = connected.map_err(|error| meaning(&error))?;
            Ok(Link::one(connection, driver))
        };
        match tokio::time::timeout(CONNECT_DEADLINE, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(Unavailable::Slow(CONNECT_DEADLINE)),
        }
    }

    fn settings(&self, login: Login) -> RedisConnectionInfo {
        // One command less that the ACL would have to permit.
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        if login == Login::Ours {
            settings = settings.set_db(self.address.database);
            if let Some(user) = &self.address.user {
                settings = settings.set_username(user);
            }
            if let Some(password) = &self.address.password {
                settings = settings.set_password(password.expose());
            }
        }
        settings
    }

    /// Asks all Sentinels at once and believes most of those that answer: one that was cut off may still name
    /// the old master. Whether it really is one, the first write shows.
    async fn to_master(&self, name: &str) -> Result<Link, Unavailable> {
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
        match self.to(sentinel, Login::None).await?.run(&ask).await {
            Err(Unavailable::Credentials) => self.to(sentinel, Login::Ours).await?.run(&ask).await,
            answer => answer,
        }
    }

    async fn to_cluster(&self) -> Result<Link, Unavailable> {
        let nodes: Result<Vec<_>, _> = self.address.nodes.iter().map(|node| self.info(node)).collect();
        let mut builder = ClusterClientBuilder::new(nodes.map_err(|error| meaning(&error))?)
            .connection_timeout(CONNECT_DEADLINE)
            .response_timeout(COMMAND_DEADLINE)
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(LEAST_RETRY_WAIT.as_millis() as u64)
            .max_retry_wait(MOST_RETRY_WAIT.as_millis() as u64);
        if self.address.tls {
            builder = builder.tls(TlsMode::Secure);
            if let Some(pem) = &self.authorities {
                builder = builder.certs(TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) });
            }
        }
        let client = builder.build().map_err(|error| meaning(&error))?;
        let connected = in_time(CONNECT_DEADLINE, client.get_async_connection()).await;
        connected.map(Link::Cluster).map_err(|reason| match (reason, self.address.nodes.first()) {
            (Unavailable::Broken, Some(node)) => Unavailable::Unreachable {
                at: node.to_string(),
                reason: "neither it nor any other node of session.redis.url can be used".to_owned(),
            },
            (other, _) => other,
        })
    }

    fn info(&self, node: &Node) -> Result<ConnectionInfo, RedisError> {
        let address = match node.clone() {
            Node::Unix(path) => ConnectionAddr::Unix(path),
            // Whether by TLS, the client of the cluster is told once for all nodes, also those that it finds itself.
            Node::Tcp { host, port } => ConnectionAddr::Tcp(host, port),
        };
        Ok(address.into_connection_info()?.set_redis_settings(self.settings(Login::Ours)))
    }
}

/// How often a command is repeated in a cluster: once to be told the right node, and again if that has moved.
const CLUSTER_RETRIES: u32 = 3;
/// The pause before that.
const LEAST_RETRY_WAIT: Duration = Duration::from_millis(10);
const MOST_RETRY_WAIT: Duration = Duration::from_millis(100);
