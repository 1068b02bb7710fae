//! RFC 7541: header blocks.

use super::*;

#[tokio::test]
async fn compression() {
    let server = Server::start(limits()).await;
    let headers = |block: Vec<u8>| vec![frame(HEADERS, WHOLE, 1, &block)];
    judge(
        &server,
        &[
            ("2.3.3 index out of range", headers(with(b"", &[0xc6])), Connection(COMPRESSION_ERROR)),
            ("4.2 size update at the end", headers(with(b"", &[0x20])), Connection(COMPRESSION_ERROR)),
            ("4.2 size update at the beginning", headers(with(&[0x20], b"")), Fine),
            ("4.2 two of them", headers(with(&[0x20, 0x3f, 0x01], b"")), Fine),
            (
                "5.2 padding over 7 bits",
                headers(with(b"", b"\0\x01x\x82\x1f\xff")),
                Connection(COMPRESSION_ERROR),
            ),
            ("5.2 padded by zeros", headers(with(b"", b"\0\x01x\x81\x18")), Connection(COMPRESSION_ERROR)),
            ("5.2 EOS", headers(with(b"", b"\0\x01x\x84\xff\xff\xff\xff")), Connection(COMPRESSION_ERROR)),
            ("6.1 index 0", headers(with(b"", &[0x80])), Connection(COMPRESSION_ERROR)),
            ("6.2.1 indexed from now on", headers(with(b"", b"\x40\x01x\x01y")), Fine),
            ("6.2.3 never indexed", headers(with(b"", b"\x10\x01x\x01y")), Fine),
            (
                "6.3 size update too large",
                headers(with(&[0x3f, 0xe2, 0x1f], b"")),
                Connection(COMPRESSION_ERROR),
            ),
            ("4.3 half a field", headers(with(b"", &[0x40, 0x05, b'x'])), Connection(COMPRESSION_ERROR)),
        ],
    )
    .await;
}
