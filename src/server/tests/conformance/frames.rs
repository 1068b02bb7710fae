//! RFC 9113 sections 4, 6 and 7: frames on their own.

use super::*;

#[tokio::test]
async fn frames() {
    let server = Server::start(limits()).await;
    let half = &get(&[])[..10];
    let rest = &get(&[])[10..];
    judge(
        &server,
        &[
            ("4.1 unknown type", vec![frame(0x16, 0, 0, b"12345678"), request(1)], Fine),
            ("4.1 undefined flags", vec![frame(PING, 0x16, 0, b"12345678"), request(1)], Fine),
            ("4.1 reserved bit", vec![frame(PING, ACK, 1 << 31, b"12345678"), request(1)], Fine),
            ("4.2 largest frame", vec![upload("/length"), frame(DATA, END_STREAM, 1, &[0; 16384])], Fine),
            (
                "4.2 DATA too large",
                vec![upload("/length"), frame(DATA, END_STREAM, 1, &[0; 16385])],
                Stream(FRAME_SIZE_ERROR),
            ),
            (
                "4.2 HEADERS too large",
                vec![frame(HEADERS, WHOLE, 1, &[0; 16385])],
                Connection(FRAME_SIZE_ERROR),
            ),
            (
                "4.3 PRIORITY in a header block",
                vec![
                    frame(HEADERS, END_STREAM, 1, half),
                    frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9]),
                    frame(CONTINUATION, END_HEADERS, 1, rest),
                ],
                Connection(PROTOCOL_ERROR),
            ),
            (
                "4.3 HEADERS in another's block",
                vec![frame(HEADERS, END_STREAM, 1, half), request(3)],
                Connection(PROTOCOL_ERROR),
            ),
            (
                "5.5 unknown frame in a header block",
                vec![
                    frame(HEADERS, END_STREAM, 1, half),
                    frame(0x16, 0, 0, b""),
                    frame(CONTINUATION, END_HEADERS, 1, rest),
                ],
                Connection(PROTOCOL_ERROR),
            ),
            ("6.1 DATA on stream 0", vec![frame(DATA, END_STREAM, 0, b"x")], Connection(PROTOCOL_ERROR)),
            (
                "6.1 padding",
                vec![upload("/length"), frame(DATA, END_STREAM | PADDED, 1, b"\x03abc\0\0\0")],
                Fine,
            ),
            (
                "6.1 too much padding",
                vec![upload("/length"), frame(DATA, END_STREAM | PADDED, 1, b"\x08abc")],
                Connection(PROTOCOL_ERROR),
            ),
            ("6.2 HEADERS on stream 0", vec![request(0)], Connection(PROTOCOL_ERROR)),
            (
                "6.2 padding",
                vec![frame(HEADERS, WHOLE | PADDED, 1, &[b"\x02", &get(&[])[..], b"\0\0"].concat())],
                Fine,
            ),
            (
                "6.2 too much padding",
                vec![frame(HEADERS, WHOLE | PADDED, 1, &[b"\xff", &get(&[])[..]].concat())],
                Connection(PROTOCOL_ERROR),
            ),
            (
                "6.2 priority",
                vec![frame(HEADERS, WHOLE | PRIORITISED, 1, &with(&[0, 0, 0, 0, 9], b""))],
                Fine,
            ),
            (
                "6.3 PRIORITY on stream 0",
                vec![frame(PRIORITY, 0, 0, &[0, 0, 0, 3, 9])],
                Connection(PROTOCOL_ERROR),
            ),
            (
                "6.3 PRIORITY of another length",
                vec![held(1), frame(PRIORITY, 0, 1, &[0; 4])],
                Stream(FRAME_SIZE_ERROR),
            ),
            (
                "6.4 RST_STREAM on stream 0",
                vec![frame(RST_STREAM, 0, 0, &number(8))],
                Connection(PROTOCOL_ERROR),
            ),
            (
                "6.4 RST_STREAM of another length",
                vec![held(1), frame(RST_STREAM, 0, 1, &[0; 3])],
                Connection(FRAME_SIZE_ERROR),
            ),
            (
                "6.6 PUSH_PROMISE",
                vec![frame(PUSH_PROMISE, END_HEADERS, 1, &with(&number(2), b""))],
                Connection(PROTOCOL_ERROR),
            ),
            ("6.7 PING on a stream", vec![frame(PING, 0, 1, b"12345678")], Connection(PROTOCOL_ERROR)),
            ("6.7 PING of another length", vec![frame(PING, 0, 0, b"1234567")], Connection(FRAME_SIZE_ERROR)),
            ("6.8 GOAWAY on a stream", vec![frame(GOAWAY, 0, 1, &[0; 8])], Connection(PROTOCOL_ERROR)),
            (
                "6.10 several CONTINUATIONs",
                vec![
                    frame(HEADERS, END_STREAM, 1, &half[..4]),
                    frame(CONTINUATION, 0, 1, &half[4..]),
                    frame(CONTINUATION, END_HEADERS, 1, rest),
                ],
                Fine,
            ),
            (
                "6.10 DATA among them",
                vec![
                    frame(HEADERS, 0, 1, half),
                    frame(CONTINUATION, 0, 1, b""),
                    frame(DATA, END_STREAM, 1, b"x"),
                ],
                Connection(PROTOCOL_ERROR),
            ),
            (
                "6.10 on stream 0",
                vec![frame(HEADERS, END_STREAM, 1, half), frame(CONTINUATION, END_HEADERS, 0, rest)],
                Connection(PROTOCOL_ERROR),
            ),
            (
                "6.10 after the end",
                vec![held(1), frame(CONTINUATION, END_HEADERS, 1, b"")],
                Connection(PROTOCOL_ERROR),
            ),
            (
                "6.10 after DATA",
                vec![upload("/hold"), frame(DATA, 0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1, b"")],
                Connection(PROTOCOL_ERROR),
            ),
            ("7 unknown error code", vec![held(3), frame(RST_STREAM, 0, 3, &number(0xff)), request(5)], Fine),
        ],
    )
    .await;
}
