//! HTTP/2 frames by hand (RFC 9113 section 4.1), for what no client library sends.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::client::connect;
use super::soon;

/// A field of a header block.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// DATA, HEADERS and SETTINGS, as the type of a frame.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const SETTINGS: u8 = 4;

/// END_STREAM and END_HEADERS, as flags of a frame.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// What became of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was answered with 200.
    Ok,
    /// It was answered with another status.
    Refused,
    /// RST_STREAM, with this code.
    Reset(u32),
    /// The whole connection ended.
    Over,
}

/// A connection after its preface.
#[derive(Debug)]
pub struct Frames(TlsStream<TcpStream>);

impl Frames {
    /// Connects to a port, with the host as SNI.
    pub async fn connect(port: u16, host: &str) -> Self {
        let mut stream = soon("TLS", connect(port, Some(host), &[b"h2"])).await.expect("TLS");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
        Self(stream)
    }

    /// Sends frames, to a peer that may have had enough already.
    pub async fn send(&mut self, frames: &[u8]) {
        let _ = self.0.write_all(frames).await;
        let _ = self.0.flush().await;
    }

    /// Waits for the fate of a stream.
    pub async fn fate(&mut self, stream: u32) -> Fate {
        loop {
            let mut header = [0; 9];
            if soon("a frame", self.0.read_exact(&mut header)).await.is_err() {
                return Fate::Over;
            }
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let mut payload = vec![0; length];
            if soon("the rest of a frame", self.0.read_exact(&mut payload)).await.is_err() {
                return Fate::Over;
            }
            let of = u32::from_be_bytes(header[5..9].try_into().unwrap());
            match header[3] {
                HEADERS if of == stream => return if is_ok(&payload) { Fate::Ok } else { Fate::Refused },
                3 if of == stream => {
                    return Fate::Reset(u32::from_be_bytes(payload[..4].try_into().unwrap()));
                }
                7 => return Fate::Over,
                _ => {}
            }
        }
    }
}

/// A block that begins with `:status: 200`, which is entry 8 of HPACK's static table; updates of the table's size
/// may come before.
fn is_ok(block: &[u8]) -> bool {
    block.iter().find(|byte| **byte & 0xe0 != 0x20) == Some(&0x88)
}

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of literals without indexing (RFC 7541 section 6.2.2), none of them longer than 126 bytes.
pub fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let text = |text: &[u8]| {
        assert!(text.len() < 127, "one byte of length");
        [&[u8::try_from(text.len()).unwrap()], text].concat()
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}
