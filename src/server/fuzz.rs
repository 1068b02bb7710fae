//! The first bytes of a connection, under arbitrary bytes. See [`crate::fuzzing`].
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, reason = "see crate::fuzzing")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use super::proxy_protocol::read_header;

pub use super::front::fuzz::{http1_front, http2_front};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_io().build().unwrap();
}

/// What [`read_header`] makes of a connection: the address, if there is a header, and the bytes that it left.
type Taken = (Option<Option<SocketAddr>>, Vec<u8>);

/// The bytes as all that a load balancer sends.
pub fn proxy_protocol(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(MOST)];
    let whole = taken(bytes, bytes.len());
    assert_eq!(whole, taken(bytes, bytes.len() / 2), "in two pieces");
    assert_eq!(whole, taken(bytes, 1), "the first byte by itself");
    let (Some(address), left) = whole else {
        assert!(header(bytes).is_none(), "a header was refused");
        return;
    };
    let (length, expected) = header(bytes).expect("a header");
    assert_eq!(left, bytes[length..], "a byte of what follows is gone, or one of the header is left");
    assert_eq!(address, expected);
}

fn taken(bytes: &[u8], cut: usize) -> Taken {
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            // A socket of the system's own, which for reading is as good as one of TCP, and uses up no ports.
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            let mut stream = TcpStream::from_std(OwnedFd::from(ours).into()).unwrap();
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            theirs.write_all(first).unwrap();
            let (address, ()) = tokio::join!(read_header(&mut stream), async {
                tokio::task::yield_now().await;
                theirs.write_all(second).unwrap();
                drop(theirs);
            });
            let mut left = Vec::new();
            let kept = address.is_ok();
            stream.read_to_end(&mut left).await.unwrap();
            (address.ok(), if kept { left } else { Vec::new() })
        })
    })
}

/// The length of the header and the address in it, with all the bytes at hand.
fn header(bytes: &[u8]) -> Option<(usize, Option<SocketAddr>)> {
    if let Some(rest) = bytes.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n") {
        let [command, family, high, low, rest @ ..] = rest else { return None };
        let length = usize::from(*high) << 8 | usize::from(*low);
        let body = rest.get(..length).filter(|_| length <= 8192)?;
        let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        let address = match (command, family) {
            (0x20, _) | (0x21, 0) => None,
            (0x21, 0x11 | 0x12) => {
                let ip: [u8; 4] = body.get(..12)?.first_chunk().copied()?;
                Some(SocketAddr::from((ip, port(8))))
            }
            (0x21, 0x21 | 0x22) => {
                let ip: [u8; 16] = body.get(..36)?.first_chunk().copied()?;
                Some(SocketAddr::from((ip, port(32))))
            }
            (0x21, 0x31 | 0x32) => body.get(..216).map(|_| None)?,
            _ => return None,
        };
        return Some((16 + length, address));
    }
    let end = bytes.iter().take(107).position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&bytes[..end]).ok()?.strip_suffix('\r')?;
    let words: Vec<&str> = line.split(' ').collect();
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| port.to_string() == text);
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => Some((end + 1, None)),
        ["PROXY", "TCP4", from, to, port_from, port_to] => {
            let (from, _): (std::net::Ipv4Addr, std::net::Ipv4Addr) = (from.parse().ok()?, to.parse().ok()?);
            port(port_to)?;
            Some((end + 1, Some(SocketAddr::from((from, port(port_from)?)))))
        }
        ["PROXY", "TCP6", from, to, port_from, port_to] => {
            let (from, _): (std::net::Ipv6Addr, std::net::Ipv6Addr) = (from.parse().ok()?, to.parse().ok()?);
            port(port_to)?;
            Some((end + 1, Some(SocketAddr::from((from, port(port_from)?)))))
        }
        _ => None,
    }
}

/// Fits into a socket's buffer, so that nobody waits.
const MOST: usize = 16 * 1024;
