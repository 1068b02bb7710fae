//! A small HTTP/1.1 server for loopback: bounded, with deadlines, and deaf to other hosts.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::answer::{self, Answer};

/// Why serving did not begin or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener could be reached from another host.
    #[error(
        "{0} is not a loopback address; the development identity provider and the demo app serve only this machine"
    )]
    NotLoopback(SocketAddr),
    /// The listener's address could not be read.
    #[error("the listener does not work: {0}")]
    Listener(#[from] io::Error),
}

/// Something that answers requests.
pub(super) trait Site: Send + Sync + 'static {
    fn answer(self: Arc<Self>, request: Request<Incoming>) -> impl Future<Output = Answer> + Send;
}

/// Serves `site` until the future is dropped, which ends all connections too.
pub(super) async fn serve<S: Site>(listener: TcpListener, site: Arc<S>) -> Result<Infallible, ServeError> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        return Err(ServeError::NotLoopback(address));
    }
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, site.clone()));
                }
                // Out of file descriptors, or a client that is gone already: neither is a reason to stop.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
}

async fn connection<S: Site>(stream: TcpStream, site: Arc<S>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let site = site.clone();
        async move {
            let answer = if is_meant_for_loopback(&request) {
                site.answer(request).await
            } else {
                answer::text(StatusCode::MISDIRECTED_REQUEST, "only this machine is served here\n")
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_header_size(MOST_HEADER_BYTES);
    // How a connection ends matters to nobody: what was asked has been answered, or the client is gone.
    let _ended = http.serve_connection(TokioIo::new(stream), service).await;
}

/// Whether the request names this machine. A page of another site can make a name of its own lead to 127.0.0.1
/// (DNS rebinding), but then that name is in the Host field.
fn is_meant_for_loopback<B>(request: &Request<B>) -> bool {
    let Some(host) = request.headers().get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || bare.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
}

/// Most connections at once; others wait in the backlog.
const MOST_CONNECTIONS: usize = 256;
/// How long accepting rests after an error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the head of a request may take, and an idle connection may stay.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of a head: as much as the proxy in front lets through.
const MOST_HEADER_BYTES: usize = 96 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_for_this_machine_are_meant() {
        for (host, meant) in [
            ("localhost", true),
            ("LOCALHOST:8443", true),
            ("127.0.0.1:80", true),
            ("127.9.9.9", true),
            ("[::1]:8080", true),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("evil.example", false),
            ("10.0.0.1", false),
            ("[::2]", false),
            ("", false),
        ] {
            let request = Request::builder().header(HOST, host).body(()).unwrap();
            assert_eq!(is_meant_for_loopback(&request), meant, "{host}");
        }
        assert!(!is_meant_for_loopback(&Request::new(())));
    }
}
