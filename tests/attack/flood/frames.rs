//! HTTP/2 frames by hand (RFC 9113 section 4, RFC 7541).

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::HOST;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The preface, and SETTINGS with these.
pub fn preface(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = settings
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &payload)].concat()
}

/// RFC 7541 section 5.1, without Huffman coding.
fn text(block: &mut Vec<u8>, text: &str) {
    match text.len() {
        length @ ..127 => block.push(u8::try_from(length).unwrap()),
        length => {
            block.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            block.push(u8::try_from(rest).unwrap());
        }
    }
    block.extend_from_slice(text.as_bytes());
}

/// A header block of literals; `first` is the byte before each: 0 without indexing, 64 with.
pub fn literals(first: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(first);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// A request without further fields.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    literals(0, &[(":method", method), (":scheme", "https"), (":authority", HOST), (":path", path)])
}

/// What came back on a connection, to its end or to a deadline.
#[derive(Debug, Default)]
pub struct Back {
    /// The connection has ended.
    pub ended: bool,
    pub goaway: Option<u32>,
    pub heads: usize,
    pub resets: usize,
    pub acks: usize,
    pub pongs: usize,
    pub data: usize,
    pub took: Duration,
}

impl Back {
    /// Reads frames until the end, until `enough`, or for at most `limit`.
    pub async fn read(
        stream: &mut (impl AsyncRead + Unpin),
        limit: Duration,
        enough: impl Fn(&Self) -> bool,
    ) -> Self {
        let (mut back, since) = (Self::default(), Instant::now());
        let reading = async {
            while !enough(&back) {
                let mut header = [0; 9];
                if stream.read_exact(&mut header).await.is_err() {
                    back.ended = true;
                    return;
                }
                let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
                if stream.read_exact(&mut payload).await.is_err() {
                    back.ended = true;
                    return;
                }
                back.take(header[3], header[4], &payload);
            }
        };
        let _ = tokio::time::timeout(limit, reading).await;
        back.took = since.elapsed();
        back
    }

    fn take(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        match kind {
            DATA => self.data += payload.len(),
            HEADERS => self.heads += 1,
            RST_STREAM => self.resets += 1,
            SETTINGS if flags & ACK != 0 => self.acks += 1,
            PING if flags & ACK != 0 => self.pongs += 1,
            GOAWAY => {
                let code = payload.get(4..8).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes);
                self.goaway = code.filter(|code| *code != 0).or(self.goaway).or(code);
            }
            _ => {}
        }
    }
}
