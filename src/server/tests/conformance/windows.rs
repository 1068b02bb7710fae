//! RFC 9113 sections 3.4, 6.5, 6.7 and 6.9: the preface, settings, pings and windows.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

#[tokio::test]
async fn settings_and_windows() {
    let server = Server::start(limits()).await;
    let window = |stream: u32, by: u32| frame(WINDOW_UPDATE, 0, stream, &number(by));
    judge(
        &server,
        &[
            ("6.5 ACK with a payload", vec![frame(SETTINGS, ACK, 0, b"x")], Connection(FRAME_SIZE_ERROR)),
            ("6.5 on a stream", vec![frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 9])], Connection(PROTOCOL_ERROR)),
            ("6.5 of another length", vec![frame(SETTINGS, 0, 0, &[0; 5])], Connection(FRAME_SIZE_ERROR)),
            ("6.5.2 ENABLE_PUSH 2", vec![setting(2, 2)], Connection(PROTOCOL_ERROR)),
            ("6.5.2 INITIAL_WINDOW_SIZE", vec![setting(4, 1 << 31)], Connection(FLOW_CONTROL_ERROR)),
            ("6.5.2 MAX_FRAME_SIZE too small", vec![setting(5, 16383)], Connection(PROTOCOL_ERROR)),
            ("6.5.2 MAX_FRAME_SIZE too large", vec![setting(5, 1 << 24)], Connection(PROTOCOL_ERROR)),
            ("6.5.2 unknown", vec![setting(0xff, 1), request(1)], Fine),
            ("6.9 increment 0", vec![window(0, 0)], Connection(PROTOCOL_ERROR)),
            ("6.9 increment 0 on a stream", vec![held(1), window(1, 0)], Stream(PROTOCOL_ERROR)),
            (
                "6.9 of another length",
                vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])],
                Connection(FRAME_SIZE_ERROR),
            ),
            ("6.9.1 beyond 2^31-1", vec![window(0, 0x7fff_ffff)], Connection(FLOW_CONTROL_ERROR)),
            (
                "6.9.1 beyond it on a stream",
                vec![held(1), window(1, 0x7fff_ffff)],
                Stream(FLOW_CONTROL_ERROR),
            ),
            (
                "6.9.2 negative",
                vec![setting(4, 100), held(1), setting(4, 0), setting(4, 100), request(3)],
                Fine,
            ),
        ],
    )
    .await;
}

/// The next frame: type, flags and payload. `None`: the end.
async fn next(raw: &mut Raw) -> Option<(u8, u8, Vec<u8>)> {
    let mut header = [0; 9];
    within(raw.0.read_exact(&mut header)).await.ok()?;
    let mut payload = vec![0; usize::from(header[1]) << 8 | usize::from(header[2])];
    within(raw.0.read_exact(&mut payload)).await.ok()?;
    Some((header[3], header[4], payload))
}

#[tokio::test]
async fn pings_are_answered_and_their_answers_are_not() {
    let server = Server::start(limits()).await;
    let mut raw = Raw::connect(&server).await;
    raw.send(&[frame(PING, ACK, 0, b"answered"), frame(PING, 0, 0, b"question")].concat()).await;
    loop {
        let (kind, flags, payload) = next(&mut raw).await.unwrap();
        if kind == PING {
            assert_eq!((flags, &payload[..]), (ACK, &b"question"[..]));
            break;
        }
    }
}

/// RFC 9113 section 6.9: no byte more than the client has room for, also after the room has become negative.
#[tokio::test]
async fn windows_are_kept() {
    let server = Server::start(limits()).await;
    let mut raw = Raw::connect(&server).await;
    raw.send(&[setting(4, 1), request(1)].concat()).await;
    let mut sizes = Vec::new();
    loop {
        let (kind, flags, payload) = next(&mut raw).await.unwrap();
        if kind != DATA {
            continue;
        }
        sizes.push(payload.len());
        if flags & END_STREAM != 0 {
            break;
        }
        raw.send(&frame(WINDOW_UPDATE, 0, 1, &number(1))).await;
    }
    assert_eq!(sizes.iter().sum::<usize>(), 2, "ok");
    assert!(sizes.iter().all(|size| *size <= 1), "{sizes:?}");
}

#[tokio::test]
async fn whoever_speaks_something_else_is_let_go() {
    let server = Server::start(limits()).await;
    let mut stream = server.connect(b"h2").await;
    stream.write_all(b"INVALID CONNECTION PREFACE\r\n\r\n").await.unwrap();
    read_all(&mut stream).await;
    assert!(server.shared.seen().is_empty());
}
