//! A byte stream to one server: a socket or TCP, TLS where the URL asks for it. Speaks no Redis.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::address::Node;
use super::error::Unavailable;
use crate::web::trust::{TlsProblem, Trust};

/// What Redis is spoken over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// TLS as it is spoken to Redis, vouched for by `trust`.
pub(super) fn tls_config(trust: &Trust) -> Result<Arc<ClientConfig>, Unavailable> {
    let shared = trust.client_config().map_err(|problem| Unavailable::Tls(problem.to_string()))?;
    let mut config = ClientConfig::clone(&shared);
    // There is no name for the protocol, and this is not HTTP.
    config.alpn_protocols.clear();
    Ok(Arc::new(config))
}

/// Connects to `node`. The caller sets the deadline.
pub(super) async fn dial(
    node: &Node,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Box<dyn Stream>, Unavailable> {
    let unreachable =
        |error: io::Error| Unavailable::Unreachable { at: node.to_string(), reason: error.to_string() };
    let (host, port) = match node {
        Node::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await.map_err(unreachable)?)),
        Node::Tcp { host, port } => (host.as_str(), *port),
    };
    let tcp = TcpStream::connect((host, port)).await.map_err(unreachable)?;
    // Commands are small and wait for answers. If the system can't, they wait a little longer.
    let _ = tcp.set_nodelay(true);
    let Some(config) = tls else { return Ok(Box::new(tcp)) };
    let problem = |problem: TlsProblem| Unavailable::Tls(problem.to_string());
    let name = ServerName::try_from(host.to_owned()).map_err(|_| problem(TlsProblem::WrongName))?;
    let connected = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await;
    Ok(Box::new(connected.map_err(|error| problem(TlsProblem::of(&error)))?))
}
