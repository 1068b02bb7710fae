//! The PROXY protocol, versions 1 and 2, as HAProxy's `proxy-protocol.txt` defines it: the header that a load
//! balancer puts before the first byte of a connection, and the client's address in it.
//!
//! It knows bytes and addresses only. Who may send a header is the listener's to say; whoever may must, for
//! the specification forbids to guess. Exactly the header is taken from the socket: what follows it stays there
//! for the handshake. Extensions (TLVs) are skipped, their checksum too: it protects against nothing that TCP
//! and the list of balancers don't.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// Why there is no header. The blame is the load balancer's, or the configuration's.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    /// The connection ended before its first byte: the check of a load balancer.
    #[error("the load balancer connected and left")]
    Silent,
    /// Something else came first.
    #[error(
        "there is no PROXY header; let the load balancer send one, or take its address out of proxyProtocolSubnets"
    )]
    Missing,
    /// Version 1, and not as it should be.
    #[error("the PROXY header (version 1) is malformed")]
    Text,
    /// Version 2, and not as it should be.
    #[error("the PROXY header (version 2) is malformed")]
    Binary,
    /// Longer than any that makes sense.
    #[error("the PROXY header is too long")]
    TooLong,
    /// The connection broke within the header.
    #[error("the connection ended within the PROXY header: {0}")]
    Cut(#[from] io::Error),
}

/// Takes the header from `stream`, and nothing after it. `None`: the balancer speaks for itself (`LOCAL`), or
/// can't tell the address (`UNKNOWN`, Unix sockets); the socket's own address stands.
pub(super) async fn read_header(stream: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderError> {
    let mut start = [0; SIGNATURE.len()];
    let mut have = 0;
    while have < start.len() {
        match stream.read(start.get_mut(have..).unwrap_or_default()).await? {
            0 if have == 0 => return Err(HeaderError::Silent),
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            more => have += more,
        }
        // Told at once: whoever sends something else must not wait for the timeout.
        let seen = start.get(..have).unwrap_or_default();
        if !(SIGNATURE.starts_with(seen) || begins_text(seen)) {
            return Err(HeaderError::Missing);
        }
    }
    if start == *SIGNATURE { read_binary(stream).await } else { read_text(stream, start).await }
}

/// Whether these may be the first bytes of version 1.
fn begins_text(seen: &[u8]) -> bool {
    seen.iter().zip(TEXT).all(|(seen, text)| seen == text)
}

/// Version 1: one line. Its end is looked for before it is taken.
async fn read_text(
    stream: &mut TcpStream,
    start: [u8; SIGNATURE.len()],
) -> Result<Option<SocketAddr>, HeaderError> {
    let mut line = [0; MAX_TEXT_BYTES];
    let mut have = start.len();
    line.iter_mut().zip(start).for_each(|(to, from)| *to = from);
    loop {
        let room = line.get_mut(have..).unwrap_or_default();
        if room.is_empty() {
            return Err(HeaderError::TooLong);
        }
        let seen = stream.peek(room).await?;
        let end = room.iter().take(seen).position(|byte| *byte == b'\n');
        let taken = end.map_or(seen, |at| at + 1);
        if taken == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        stream.read_exact(room.get_mut(..taken).unwrap_or_default()).await?;
        have += taken;
        if end.is_some() {
            return parse_text(line.get(..have).unwrap_or_default()).ok_or(HeaderError::Text);
        }
    }
}

/// Reads a whole line of version 1. The outer `None`: malformed.
fn parse_text(line: &[u8]) -> Option<Option<SocketAddr>> {
    let line = std::str::from_utf8(line).ok()?.strip_prefix("PROXY ")?.strip_suffix("\r\n")?;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Some(None);
    }
    let words: Vec<&str> = line.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = <[&str; 5]>::try_from(words).ok()?;
    let read = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse().ok().map(Ipv4Addr::into),
            "TCP6" => text.parse().ok().map(Ipv6Addr::into),
            _ => None,
        }
    };
    let (address, port) = (read(source)?, parse_port(source_port)?);
    // Not used, and yet no reason to take what is no header.
    read(destination).zip(parse_port(destination_port))?;
    Some(Some(SocketAddr::new(address, port)))
}

/// A decimal number without sign or needless zeros.
fn parse_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// Version 2, after its signature: command, family and length, then addresses, then extensions.
async fn read_binary(stream: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderError> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await?;
    let [command, family, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let wanted = match (command, family) {
        // LOCAL: whatever the rest says is to be skipped.
        (0x20, _) | (0x21, 0x00) => 0,
        (0x21, 0x11 | 0x12) => IPV4_BYTES,
        (0x21, 0x21 | 0x22) => IPV6_BYTES,
        (0x21, 0x31 | 0x32) => UNIX_BYTES,
        _ => return Err(HeaderError::Binary),
    };
    if length < wanted {
        return Err(HeaderError::Binary);
    }
    if length > MAX_BINARY_BYTES {
        return Err(HeaderError::TooLong);
    }
    let mut addresses = [0; IPV6_BYTES];
    let taken = addresses.get_mut(..length.min(IPV6_BYTES)).unwrap_or_default();
    stream.read_exact(taken).await?;
    skip(stream, length - length.min(IPV6_BYTES)).await?;
    Ok(match wanted {
        IPV4_BYTES | IPV6_BYTES => parse_addresses(wanted, &addresses),
        _ => None,
    })
}

/// The source: after it come the destination's address, the source's port and the destination's port.
fn parse_addresses(length: usize, bytes: &[u8; IPV6_BYTES]) -> Option<SocketAddr> {
    let address: IpAddr = match length {
        IPV4_BYTES => <[u8; 4]>::try_from(bytes.get(..4)?).ok()?.into(),
        _ => <[u8; 16]>::try_from(bytes.get(..16)?).ok()?.into(),
    };
    let port = bytes.get(length - 4..length - 2)?;
    Some(SocketAddr::new(address, u16::from_be_bytes(port.try_into().ok()?)))
}

async fn skip(stream: &mut TcpStream, mut left: usize) -> io::Result<()> {
    let mut scratch = [0; 256];
    while left > 0 {
        let now = scratch.get_mut(..left.min(256)).unwrap_or_default();
        left -= stream.read_exact(now).await?;
    }
    Ok(())
}

/// How version 2 begins. Version 1 is never as short as this.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// How version 1 begins.
const TEXT: &[u8] = b"PROXY ";

/// The longest line of version 1, its CR LF included (section 2.1).
const MAX_TEXT_BYTES: usize = 107;

/// Bytes of a version 2 header after its length that are taken. Addresses are at most 216; the rest is room for
/// extensions, of which a client's certificate is the largest.
const MAX_BINARY_BYTES: usize = 8 * 1024;

/// Two addresses and two ports (section 2.2).
const IPV4_BYTES: usize = 12;
/// See [`IPV4_BYTES`].
const IPV6_BYTES: usize = 36;
/// Two paths.
const UNIX_BYTES: usize = 216;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    const REST: &[u8] = b"\x16\x03\x01 what follows";

    /// What is made of these bytes, sent in pieces of this size, and what is left for the handshake.
    async fn read(bytes: &[u8], piece: usize) -> (Result<Option<String>, String>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let sent = [bytes, REST].concat();
        let sending = async {
            for piece in sent.chunks(piece) {
                // Whoever refuses closes, and the rest finds nobody.
                let _ = client.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            let _ = client.shutdown().await;
        };
        let reading = async {
            let header = read_header(&mut stream).await;
            let mut rest = Vec::new();
            if header.is_ok() {
                stream.read_to_end(&mut rest).await.unwrap();
            }
            let header = header.map(|source| source.map(|source| source.to_string()));
            (header.map_err(|error| error.to_string()), rest)
        };
        tokio::join!(reading, sending).0
    }

    fn binary(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, payload].concat()
    }

    #[tokio::test]
    async fn good_headers_however_they_arrive() {
        let ipv4 = [192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 1, 187];
        let mut ipv6 = [0; 36];
        ipv6[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        ipv6[15] = 7;
        ipv6[32..34].copy_from_slice(&[0, 80]);
        let tlv = [3, 0, 4, 1, 2, 3, 4, 0xee, 0, 1, 9];
        let longest = format!("PROXY TCP6 {0} {0} 65535 65535\r\n", "ffff:".repeat(8).trim_end_matches(':'));
        assert!(longest.len() <= MAX_TEXT_BYTES);
        for (bytes, source) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\r\n".to_vec(), Some("192.0.2.7:8080")),
            (b"PROXY TCP6 2001:db8::7 ::1 80 443\r\n".to_vec(), Some("[2001:db8::7]:80")),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 0 443\r\n".to_vec(), Some("[::ffff:192.0.2.7]:0")),
            (longest.into_bytes(), Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (binary(0x21, 0x11, &ipv4), Some("192.0.2.7:8080")),
            (binary(0x21, 0x11, &[&ipv4[..], &tlv].concat()), Some("192.0.2.7:8080")),
            (binary(0x21, 0x12, &[&ipv4[..], &[4, 1, 0], &[0; 256]].concat()), Some("192.0.2.7:8080")),
            (binary(0x21, 0x21, &[&ipv6[..], &tlv].concat()), Some("[2001:db8::7]:80")),
            (binary(0x21, 0x22, &ipv6), Some("[2001:db8::7]:80")),
            (binary(0x21, 0x31, &[b'x'; 216]), None),
            (binary(0x21, 0x00, b""), None),
            (binary(0x21, 0x00, &tlv), None),
            (binary(0x20, 0x00, b""), None),
            (binary(0x20, 0x11, &ipv4), None),
            (binary(0x20, 0xff, &tlv), None),
            (binary(0x21, 0x11, &[&ipv4[..], &[4; MAX_BINARY_BYTES - 12]].concat()), Some("192.0.2.7:8080")),
        ] {
            for piece in [usize::MAX, 1, 7, 13] {
                let (header, rest) = read(&bytes, piece).await;
                assert_eq!(header, Ok(source.map(str::to_owned)), "{:?}", String::from_utf8_lossy(&bytes));
                assert_eq!(rest, REST, "after {:?} in pieces of {piece}", String::from_utf8_lossy(&bytes));
            }
        }
    }

    #[tokio::test]
    async fn bad_headers_are_refused() {
        let text = |line: &str| line.as_bytes().to_vec();
        let (missing, malformed) = ("there is no PROXY header", "malformed");
        for (bytes, why) in [
            (text("GET / HTTP/1.1\r\n"), missing),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00".to_vec(), missing),
            (text("PROXYxTCP4 1.2.3.4 1.2.3.4 1 2\r\n"), missing),
            (text("proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n"), missing),
            (b"\r\n\r\n\0\r\nQUIX\n".to_vec(), missing),
            (text("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"), malformed),
            (text("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n"), malformed),
            (text("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n"), malformed),
            (text("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n"), malformed),
            (text("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n"), malformed),
            (text("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n"), malformed),
            (text("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n"), malformed),
            (text("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n"), malformed),
            (text("PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n"), malformed),
            (text("PROXY TCP4 1.2.3.4 1.2.3 1 2\r\n"), malformed),
            (text("PROXY TCP4 ::1 1.2.3.4 1 2\r\n"), malformed),
            (text("PROXY TCP6 1.2.3.4 ::1 1 2\r\n"), malformed),
            (text("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n"), malformed),
            (text("PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n"), malformed),
            (text("PROXY UNKNOWNS\r\n"), malformed),
            (text("PROXY TCP4 1.2.3.4\r1.2.3.4 1 2\r\n"), malformed),
            (b"PROXY TCP4 1.2.3.4 \xff 1 2\r\n".to_vec(), malformed),
            (format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)).into_bytes(), "too long"),
            (text("PROXY TCP4 1.2.3.4 "), "too long|malformed"),
            (binary(0x11, 0x11, &[0; 12]), malformed),
            (binary(0x22, 0x11, &[0; 12]), malformed),
            (binary(0x21, 0x10, &[0; 12]), malformed),
            (binary(0x21, 0x41, &[0; 12]), malformed),
            (binary(0x21, 0x11, &[0; 11]), malformed),
            (binary(0x21, 0x21, &[0; 35]), malformed),
            (binary(0x21, 0x31, &[0; 215]), malformed),
            (binary(0x21, 0x00, &vec![0; MAX_BINARY_BYTES + 1]), "too long"),
        ] {
            let bytes = if why.contains('|') { [&bytes[..], &[b'1'; 200]].concat() } else { bytes };
            for piece in [usize::MAX, 1] {
                let (header, _) = read(&bytes, piece).await;
                let error = header.unwrap_err();
                let shown = String::from_utf8_lossy(&bytes);
                assert!(why.split('|').any(|why| error.contains(why)), "{shown:?}: {error}");
            }
        }
    }
}
