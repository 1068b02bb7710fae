//! The sockets of the admin and the probes listener.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

use super::{Error, Handler, Listen};

/// A bound socket.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listener {
    pub(super) fn bind(listen: &Listen) -> Result<Self, Error> {
        match listen {
            Listen::Tcp(address) => Self::tcp(*address, "admin.listen"),
            Listen::Unix(path) => Self::unix(path).map_err(|cause| Error::Bind {
                key: "admin.listen",
                place: path.display().to_string(),
                cause,
            }),
        }
    }

    pub(super) fn tcp(address: SocketAddr, key: &'static str) -> Result<Self, Error> {
        let bind = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        };
        bind().map(Self::Tcp).map_err(|cause| Error::Bind { key, place: address.to_string(), cause })
    }

    fn unix(path: &std::path::Path) -> std::io::Result<Self> {
        use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

        // A socket that a dead process left behind answers nobody and may go; a live one stays.
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
        if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
            std::fs::remove_file(path)?;
        }
        let listener = tokio::net::UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self::Unix(listener))
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

/// Serves whoever comes. When there are too many, those go first who have not asked for anything, the oldest before the
/// others: a probe must not have to wait for somebody who only connects.
pub(super) async fn accept(listener: Listener, handler: Arc<Handler>) {
    let mut seats: VecDeque<Seat> = VecDeque::new();
    loop {
        let accepted = match &listener {
            Listener::Tcp(listener) => {
                listener.accept().await.map(|(stream, _)| Seat::taken_by(stream, handler.clone()))
            }
            Listener::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| Seat::taken_by(stream, handler.clone()))
            }
        };
        match accepted {
            Ok(seat) => {
                seats.retain(|seat| !seat.task.is_finished());
                if seats.len() >= MAX_CONNECTIONS {
                    let silent = seats.iter().position(|seat| !seat.has_asked.load(Ordering::Relaxed));
                    if let Some(seat) = seats.remove(silent.unwrap_or_default()) {
                        seat.task.abort();
                    }
                }
                seats.push_back(seat);
            }
            // Out of descriptors, most likely: let some come back.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// A connection that is served.
struct Seat {
    task: AbortHandle,
    /// A whole head of a request has come.
    has_asked: Arc<AtomicBool>,
}

impl Seat {
    fn taken_by(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, handler: Arc<Handler>) -> Self {
        let has_asked = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(serve(stream, handler, has_asked.clone())).abort_handle();
        Self { task, has_asked }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    handler: Arc<Handler>,
    has_asked: Arc<AtomicBool>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(handler.serve(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // A broken admin connection is its client's business.
    let _ = connection.await;
}

/// Connections that are served at once.
const MAX_CONNECTIONS: usize = 64;
/// Longest wait for a request's head, which is also how long an idle connection stays.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of a request's head.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
