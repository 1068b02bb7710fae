//! Records: written, read, kept as long as they should be, and closed to everybody else.

use super::server::Server;
use super::*;

#[tokio::test]
async fn a_session_makes_the_round() {
    let server = Server::start().await;
    let (one, other) = (Process::connected(single(&server)).await, Process::connected(single(&server)).await);
    let (scope, ticket) = (scope("app"), Ticket::new().unwrap());
    assert!(one.store.load(&scope, &ticket).await.unwrap().is_none());
    for payload in [b"small".to_vec(), vec![b'x'; MAX_PAYLOAD_BYTES], Vec::new()] {
        one.store.create(&scope, &ticket, &payload, IDLE).await.unwrap();
        let loaded = other.store.load(&scope, &ticket).await.unwrap().unwrap();
        assert!(*loaded.payload == payload);
        assert!(loaded.idle_left <= IDLE && loaded.idle_left > IDLE - Duration::from_secs(60));
    }
    let too_large = vec![0; MAX_PAYLOAD_BYTES + 1];
    let error = one.store.create(&scope, &ticket, &too_large, IDLE).await.unwrap_err();
    assert_eq!(error, StoreError::TooLarge { bytes: too_large.len() });

    assert!(other.store.remove(&scope, &ticket).await.unwrap());
    assert!(one.store.load(&scope, &ticket).await.unwrap().is_none());
    assert!(!one.store.remove(&scope, &ticket).await.unwrap());
    assert!(!one.store.touch(&scope, &ticket, IDLE).await.unwrap(), "what is gone stays gone");
    assert!(one.store.load(&scope, &ticket).await.unwrap().is_none());
}

/// Whoever writes to Redis makes nobody read more than a record can have.
#[tokio::test]
async fn no_more_is_read_than_a_record_may_have() {
    let server = Server::start().await;
    let names = scope("app").names(&Ticket::new().unwrap());
    let link = connect::connect(&single(&server)).await.unwrap();
    let most = record::MAX_RECORD_BYTES;
    for (bytes, read) in [(most - 1, most - 1), (most, most), (most + 1, most), (3 * most, most)] {
        let _: String = server.call(&["SET", &names.record, &"x".repeat(bytes), "PX", "60000"]).await;
        let (record, _): (Vec<u8>, i64) = link.run_all(&commands::load(&names)).await.unwrap();
        assert_eq!(record.len(), read, "of {bytes}");
    }
}

#[tokio::test]
async fn a_stolen_dump_opens_nothing() {
    let server = Server::start().await;
    let process = Process::connected(single(&server)).await;
    let (mine, other) = (scope("app"), scope("other"));
    let (ticket, stranger) = (Ticket::new().unwrap(), Ticket::new().unwrap());
    let payload = b"subject=alice-in-clear refresh=token-in-clear";
    process.store.create(&mine, &ticket, payload, IDLE).await.unwrap();
    process.store.create(&mine, &stranger, b"the stranger's", IDLE).await.unwrap();
    let _lease = process.store.lease(&mine, &ticket).await.unwrap().unwrap();

    let _: String = server.call(&["SAVE"]).await;
    let dump = std::fs::read(server.directory.path().join("dump.rdb")).unwrap();
    let has = |needle: &[u8]| dump.windows(needle.len()).any(|window| window == needle);
    assert!(has(b"portcullis:"), "the dump is not what it should be");
    let bytes = ticket.to_bytes();
    let secrets: [&[u8]; 6] = [b"alice", b"in-clear", b"app", b"idp.example", &bytes[1..17], &bytes[17..]];
    for secret in secrets {
        assert!(!has(secret), "{}", String::from_utf8_lossy(secret));
    }
    assert!(process.store.load(&other, &ticket).await.unwrap().is_none(), "another service");

    // Whoever knows where the record is has not got its key.
    let mut forged = *bytes;
    forged[17] ^= 1;
    let keyless = Ticket::from_bytes(&forged).unwrap();
    assert_eq!(mine.names(&keyless).record, mine.names(&ticket).record);
    assert!(process.store.load(&mine, &keyless).await.unwrap().is_none(), "another key");

    // Whoever writes to Redis swaps two records, or moves one to where another service looks.
    let [mine_name, stranger_name, other_name] =
        [mine.names(&ticket), mine.names(&stranger), other.names(&ticket)].map(|names| names.record);
    let _: i64 = server.call(&["COPY", &mine_name, &other_name]).await;
    let _: i64 = server.call(&["COPY", &mine_name, &stranger_name, "REPLACE"]).await;
    assert!(process.store.load(&other, &ticket).await.unwrap().is_none());
    assert!(process.store.load(&mine, &stranger).await.unwrap().is_none());
    assert!(process.store.load(&mine, &ticket).await.unwrap().is_some());
}

#[tokio::test]
async fn a_record_lives_as_long_as_it_is_used() {
    let server = Server::start().await;
    let process = Process::connected(single(&server)).await;
    let (scope, used, unused) = (scope("app"), Ticket::new().unwrap(), Ticket::new().unwrap());
    let moment = Duration::from_millis(300);
    process.store.create(&scope, &used, b"used", moment).await.unwrap();
    process.store.create(&scope, &unused, b"unused", moment).await.unwrap();
    assert!(process.store.touch(&scope, &used, IDLE).await.unwrap());
    let until = async {
        while process.store.load(&scope, &unused).await.unwrap().is_some() {
            a_moment().await;
        }
    };
    soon("the idle end", until).await;
    assert!(!process.store.touch(&scope, &unused, IDLE).await.unwrap());
    let loaded = process.store.load(&scope, &used).await.unwrap().unwrap();
    assert!(loaded.idle_left > Duration::from_secs(60));

    // A refresh moves no idle end.
    let lease = process.store.lease(&scope, &used).await.unwrap().unwrap();
    assert!(process.store.touch(&scope, &used, Duration::from_secs(30)).await.unwrap());
    let replaced = process.store.replace(&scope, &used, b"refreshed", &lease).await.unwrap();
    assert_eq!(replaced, Replaced::Yes);
    let loaded = process.store.load(&scope, &used).await.unwrap().unwrap();
    assert_eq!(*loaded.payload, b"refreshed");
    assert!(loaded.idle_left <= Duration::from_secs(30));
    let ttl: i64 = server.call(&["PTTL", &scope.names(&used).record]).await;
    assert!(ttl > 0);
}

/// Redis 7 is one server for many: what is foreign or huge under our names is no session.
#[tokio::test]
async fn what_we_did_not_write_is_no_session() {
    let server = Server::start().await;
    let process = Process::connected(single(&server)).await;
    let (scope, ticket) = (scope("app"), Ticket::new().unwrap());
    let name = scope.names(&ticket).record;
    let huge = "x".repeat(4 * MAX_PAYLOAD_BYTES);
    for value in ["", "x", &huge] {
        let _: String = server.call(&["SET", &name, value]).await;
        assert!(process.store.load(&scope, &ticket).await.unwrap().is_none());
    }
    let _: i64 = server.call(&["DEL", &name]).await;
    let _: i64 = server.call(&["RPUSH", &name, "x"]).await;
    let error = process.store.load(&scope, &ticket).await.map(|loaded| loaded.is_some()).unwrap_err();
    assert!(matches!(error, Unavailable::Unexpected(_)), "{error}");
}

/// Workers are runtimes of their own, without input and output of Redis.
#[test]
fn a_worker_waits_for_the_control_runtime() {
    let (up, started) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let control = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::start().await;
            let process = Process::connected(single(&server)).await;
            up.send(process.store.clone()).unwrap();
            let _ = stopped.await;
        });
    });
    let store = started.recv().unwrap();
    // Neither input, output nor time.
    let worker = tokio::runtime::Builder::new_current_thread().build().unwrap();
    worker.block_on(async {
        let (scope, ticket) = (scope("app"), Ticket::new().unwrap());
        store.create(&scope, &ticket, b"p", IDLE).await.unwrap();
        assert!(store.load(&scope, &ticket).await.unwrap().is_some());
        // Given up at once: it is given back all the same.
        let mut given_up = Box::pin(store.lease(&scope, &ticket));
        std::future::poll_fn(|context| {
            let _ = given_up.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
        drop(given_up);
        while store.lease(&scope, &ticket).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    });
    stop.send(()).unwrap();
    control.join().unwrap();
}
