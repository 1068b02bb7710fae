//! Connections for exact bytes, and crowds of them.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};
use tokio_rustls::client::TlsStream;

use crate::{HOST, Outcome, USERS_HOST};

pub type Tls = TlsStream<TcpStream>;

/// The longest wait for anything that has no bound of its own.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How far past its bound an end may come: the machine has other things to do.
pub const SLACK: Duration = Duration::from_secs(3);

/// Handshakes at once. More would make the clients themselves slow.
const HANDSHAKES: usize = 64;

/// The addresses of loopback that connections come from: one alone has 28,000 ports, and gets each back a minute
/// after its use.
const SOURCES: u32 = 64;

/// Trusts every certificate, and never resumes: a whole handshake each time.
pub fn client(alpn: &[u8]) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// What the system may take in for an attacker that has not read it: little, so that who reads nothing is felt at once.
const UNREAD: u32 = 16 * 1024;

/// What it may hold of what was sent.
const UNSENT: u32 = 64 * 1024;

/// A TCP connection from one of many addresses, with little room for what is not read.
pub async fn connect_plain(port: u16) -> io::Result<TcpStream> {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % SOURCES;
    let [.., c, d] = (number + 2 + (std::process::id() % 900) * SOURCES).to_be_bytes();
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_recv_buffer_size(UNREAD)?;
    socket.set_send_buffer_size(UNSENT)?;
    socket.bind(SocketAddr::from(([127, 0, c, d.max(1)], 0)))?;
    let stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A TLS connection of an attacker.
async fn connect(port: u16, config: &Arc<ClientConfig>) -> io::Result<Tls> {
    handshake(connect_plain(port), HOST, config).await
}

/// A TLS connection of anybody else.
pub async fn connect_as_usual(port: u16, config: &Arc<ClientConfig>) -> io::Result<Tls> {
    handshake(TcpStream::connect((Ipv4Addr::LOCALHOST, port)), USERS_HOST, config).await
}

async fn handshake(
    stream: impl Future<Output = io::Result<TcpStream>>,
    host: &'static str,
    config: &Arc<ClientConfig>,
) -> io::Result<Tls> {
    let handshake = async {
        let stream = stream.await?;
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream).await
    };
    tokio::time::timeout(PATIENCE, handshake).await.map_err(io::Error::other)?
}

/// Writes and flushes.
pub async fn send(stream: &mut Tls, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Reads to the end, whatever that is, and gives what came, up to `most` bytes of it.
pub async fn read_to_end(stream: &mut (impl AsyncRead + Unpin), most: usize) -> Vec<u8> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = most.saturating_sub(bytes.len()).min(count);
        bytes.extend_from_slice(&buffer[..room]);
    }
    bytes
}

/// Waits for the other side to end the connection; true once it has, false if `limit` passes before.
pub async fn is_ended(stream: &mut (impl AsyncRead + Unpin), limit: Duration) -> bool {
    tokio::time::timeout(limit, read_to_end(stream, 0)).await.is_ok()
}

/// The statuses of HTTP/1 answers in some bytes.
pub fn statuses(bytes: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(bytes);
    let status = |part: &str| part.get(..3)?.parse().ok();
    text.split("HTTP/1.1 ").skip(1).filter_map(status).collect()
}

/// Many connections at once, and what became of each.
#[derive(Clone)]
pub struct Crowd {
    open: Rc<Cell<usize>>,
    most: Rc<Cell<usize>>,
    handshakes: Rc<Semaphore>,
}

/// Counts as open while it is held.
pub struct Member(Rc<Cell<usize>>);

impl Drop for Member {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Crowd {
    pub fn new() -> Self {
        let handshakes = Rc::new(Semaphore::new(HANDSHAKES));
        Self { open: Rc::default(), most: Rc::default(), handshakes }
    }

    /// One more that is open.
    pub fn enter(&self) -> Member {
        self.open.set(self.open.get() + 1);
        self.most.set(self.most.get().max(self.open.get()));
        Member(self.open.clone())
    }

    /// A TLS connection of this crowd.
    pub async fn connect(&self, port: u16, config: &Arc<ClientConfig>) -> Result<(Tls, Member), String> {
        let _permit = self.handshakes.acquire().await.map_err(|error| error.to_string())?;
        let stream = connect(port, config).await.map_err(|error| format!("no connection: {error}"))?;
        Ok((stream, self.enter()))
    }

    /// Runs `each` for every number below `count`. An `Ok` is how long that one was held.
    pub async fn run<F: Future<Output = Result<Duration, String>> + 'static>(
        &self,
        count: usize,
        each: impl Fn(usize) -> F,
    ) -> Held {
        let (local, mut tasks) = (LocalSet::new(), JoinSet::new());
        for number in 0..count {
            tasks.spawn_local_on(each(number), &local);
        }
        let gather = async {
            let mut held = Held::default();
            while let Some(result) = tasks.join_next().await {
                match result.unwrap_or_else(|error| Err(error.to_string())) {
                    Ok(time) => {
                        held.ended += 1;
                        held.longest = held.longest.max(time);
                    }
                    Err(what) => held.wrong.push(what),
                }
            }
            held
        };
        local.run_until(gather).await
    }

    /// The most that were open at once.
    pub fn most(&self) -> usize {
        self.most.get()
    }
}

/// What became of a crowd.
#[derive(Default)]
pub struct Held {
    pub ended: usize,
    pub longest: Duration,
    pub wrong: Vec<String>,
}

impl Held {
    /// The report, with each sort of complaint once.
    pub fn outcome(self, crowd: &Crowd, words: impl FnOnce(&Self) -> String) -> Outcome {
        let words = words(&self);
        let mut wrong = self.wrong;
        let all = wrong.len();
        wrong.sort();
        wrong.dedup();
        wrong.truncate(5);
        if all > wrong.len() {
            wrong.push(format!("{all} complaints in all"));
        }
        Outcome { connections: crowd.most(), wrong, words, at_rest: None }
    }
}

#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
