//! RFC 9113 sections 5 and 8: what may come when.

use super::*;

#[tokio::test]
async fn stream_states() {
    let server = Server::start(limits()).await;
    let cancel = || frame(RST_STREAM, 0, 1, &number(8));
    let more = || frame(CONTINUATION, END_HEADERS, 1, b"");
    let data = || frame(DATA, END_STREAM, 1, b"x");
    judge(
        &server,
        &[
            ("5.1 idle: DATA", vec![data()], Connection(PROTOCOL_ERROR)),
            ("5.1 idle: RST_STREAM", vec![cancel()], Connection(PROTOCOL_ERROR)),
            (
                "5.1 idle: WINDOW_UPDATE",
                vec![frame(WINDOW_UPDATE, 0, 1, &number(100))],
                Connection(PROTOCOL_ERROR),
            ),
            ("5.1 idle: CONTINUATION", vec![more()], Connection(PROTOCOL_ERROR)),
            ("5.1 idle: PRIORITY", vec![frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 9]), request(1)], Fine),
            ("5.1 half-closed: DATA", vec![held(1), data()], Stream(STREAM_CLOSED)),
            ("5.1 half-closed: HEADERS", vec![held(1), request(1)], Stream(STREAM_CLOSED)),
            (
                "5.1 half-closed: WINDOW_UPDATE",
                vec![request(1), frame(WINDOW_UPDATE, 0, 1, &number(9))],
                Fine,
            ),
            ("5.1 half-closed: PRIORITY", vec![request(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9])], Fine),
            ("5.1 closed: CONTINUATION", vec![held(1), cancel(), more()], Connection(PROTOCOL_ERROR)),
            (
                "5.1 closed: PRIORITY",
                vec![held(1), cancel(), frame(PRIORITY, 0, 1, &[0; 5]), request(3)],
                Fine,
            ),
            ("5.1.1 even", vec![request(2)], Connection(PROTOCOL_ERROR)),
            ("5.1.1 smaller", vec![held(5), request(3)], Connection(PROTOCOL_ERROR)),
            (
                "5.3.1 HEADERS depends on itself",
                vec![frame(HEADERS, WHOLE | PRIORITISED, 1, &with(&[0, 0, 0, 1, 9], b""))],
                Stream(PROTOCOL_ERROR),
            ),
            (
                "5.3.1 PRIORITY depends on itself",
                vec![held(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 9])],
                Stream(PROTOCOL_ERROR),
            ),
            (
                "8.1 HEADERS after HEADERS",
                vec![upload("/length"), frame(HEADERS, END_HEADERS, 1, &block(&[("x", "y")]))],
                Stream(PROTOCOL_ERROR),
            ),
            (
                "8.1 trailers",
                vec![
                    upload("/length"),
                    frame(DATA, 0, 1, b"x"),
                    frame(HEADERS, WHOLE, 1, &block(&[("x", "y")])),
                ],
                Fine,
            ),
            (
                "8.3 pseudo field in what is no end",
                vec![upload("/length"), frame(HEADERS, END_HEADERS, 1, &block(&[GET[0]]))],
                Stream(PROTOCOL_ERROR),
            ),
            // This one is malformed by section 8.1. h2 drops such fields instead, so that nobody sees them.
            (
                "8.3 pseudo field in trailers",
                vec![upload("/length"), frame(HEADERS, WHOLE, 1, &block(&[GET[0]]))],
                Fine,
            ),
        ],
    )
    .await;
    // A stream that the client itself has reset: its frames may still be on their way, or an error.
    for late in [data(), request(1)] {
        let mut raw = Raw::connect(&server).await;
        raw.send(&[held(1), cancel(), late, request(3)].concat()).await;
        let back = raw.back().await;
        let known = [Back::Headers(200), Back::Reset(STREAM_CLOSED)];
        assert!(known.contains(&back) || connection(STREAM_CLOSED, &back), "{back:?}");
    }
    // One stream more than were offered.
    let mut raw = Raw::connect(&server).await;
    let many: Vec<u8> = (0..=limits().h2_streams).flat_map(|at| held(at * 2 + 1)).collect();
    raw.send(&many).await;
    assert_eq!(raw.back().await, Back::Reset(REFUSED_STREAM));
}
