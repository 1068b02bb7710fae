//! Revocations: told to all processes, also to those that come later, and never lost with the server.

use tokio::time::Instant;

use super::server::Server;
use super::*;
use crate::session::StoreLedger;
use crate::session::revocation::{Entry, Ledger as _, LedgerError, Revocations, Why};

const LIVES: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn what_one_process_ends_all_know_within_a_second() {
    let server = Server::start().await;
    let (one, other) = (Process::connected(single(&server)).await, Process::connected(single(&server)).await);
    let begun = Instant::now();
    let first = ending("the first session", LIVES);
    one.end(&first).await.unwrap();
    other.knows(&first).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());

    // More than one page, and a process that comes later.
    let many: Vec<_> = (0..1200).map(|number| ending(&format!("session {number}"), LIVES)).collect();
    for ending in &many {
        one.store.end(ending.clone()).await.unwrap();
    }
    let later = Process::connected(single(&server)).await;
    assert_eq!(later.memory.known().len(), 1201, "a store that works knows everything");
    other.knows(many.last().unwrap()).await;
    assert_eq!(other.memory.known().len(), 1201);

    let too_large = Ending { entry: vec![0; MAX_ENTRY_BYTES + 1], ..first.clone() };
    assert!(one.store.end(too_large).await.is_err());
    let largest = Ending { entry: vec![0; MAX_ENTRY_BYTES], ..first };
    one.store.end(largest.clone()).await.unwrap();
    other.knows(&largest).await;
}

#[tokio::test]
async fn a_server_that_forgets_is_told_again() {
    let server = Server::start().await;
    let (one, other) = (Process::connected(single(&server)).await, Process::connected(single(&server)).await);
    let (kept, lost) = (ending("kept", LIVES), ending("lost", LIVES));
    for ending in [&kept, &lost] {
        one.end(ending).await.unwrap();
        other.knows(ending).await;
    }
    let _: String = server.call(&["FLUSHALL"]).await;
    // The next entry has an id of its own, also if the clock of the server went back.
    let next = ending("next", LIVES);
    other.end(&next).await.unwrap();
    one.knows(&next).await;
    let until = async {
        while server.call::<i64>(&["XLEN", "portcullis:{revocations}"]).await < 3 {
            a_moment().await;
        }
    };
    soon("the entries that Redis forgot", until).await;
    let later = Process::connected(single(&server)).await;
    for ending in [&kept, &lost, &next] {
        assert!(later.memory.known().contains(ending));
    }
}

/// A failover to a replica whose clock is behind: ids begin before those that were read.
#[tokio::test]
async fn ids_that_go_backwards_are_read() {
    let server = Server::start().await;
    let process = Process::connected(single(&server)).await;
    let first = ending("first", LIVES);
    process.end(&first).await.unwrap();
    let _: i64 = server.call(&["DEL", "portcullis:{revocations}"]).await;
    let link = connect::connect(&single(&server)).await.unwrap();
    let mut add = redis::cmd("XADD");
    add.arg("portcullis:{revocations}").arg("1-1").arg("s").arg(&first.scope.0[..]).arg("e").arg("second");
    add.arg("x").arg(first.expires_at.0);
    let _: String = link.run(&add).await.unwrap();
    let second = Ending { entry: b"second".to_vec(), ..first };
    process.knows(&second).await;
}

#[tokio::test]
async fn what_ended_while_redis_was_down_is_told_when_it_is_back() {
    let mut server = Server::start().await;
    let (one, other) = (Process::connected(single(&server)).await, Process::connected(single(&server)).await);
    server.kill();
    one.fails_with(|_| true).await;
    let during = ending("during", LIVES);
    assert!(one.end(&during).await.is_err());
    server.start_again().await;
    other.knows(&during).await;
}

/// "Done" is said of an end only when the store has it.
#[tokio::test]
async fn an_end_is_durable_only_when_the_store_has_it() {
    let mut server = Server::start().await;
    let (one, other) = (Process::connected(single(&server)).await, Process::connected(single(&server)).await);
    let ledger = StoreLedger::new(one.store.clone(), &scope("app"), LIVES, Handle::current());
    let revocations = Revocations::new("app".into(), LIVES, Clock::system(), None, Arc::new(|_, _| {}));
    drop(revocations.end(Entry::Everything, Why::Admin));
    let end = revocations.known()[0];
    assert_eq!(ledger.append("app", &end).await, Ok(()));
    let until = async {
        while other.memory.known().is_empty() {
            a_moment().await;
        }
    };
    soon("the other process to hear of it", until).await;
    assert_eq!(other.memory.known()[0].entry, end.to_bytes());

    server.kill();
    assert_eq!(ledger.append("app", &end).await, Err(LedgerError::NotShared));
}

#[tokio::test]
async fn entries_leave_when_they_have_expired_and_not_before() {
    let server = Server::start().await;
    let process = Process::connected(single(&server)).await;
    let past = Ending { expires_at: UnixTime(1), ..ending("past", LIVES) };
    process.store.end(past.clone()).await.unwrap();
    let lives = ending("lives", LIVES);
    process.store.end(lives.clone()).await.unwrap();
    process.store.end(past).await.unwrap();
    let later = Process::connected(single(&server)).await;
    assert!(later.memory.known().contains(&lives));
    assert_eq!(server.call::<i64>(&["XLEN", "portcullis:{revocations}"]).await, 2);
    let ttl: i64 = server.call(&["TTL", "portcullis:{revocations}"]).await;
    assert!((3500..=3700).contains(&ttl), "the stream goes after its last entry, not before: {ttl}");
}

/// Too many entries: the oldest become one that ends more, never less.
#[tokio::test]
async fn a_full_stream_fails_closed() {
    let server = Server::start().await;
    let link = connect::connect(&single(&server)).await.unwrap();
    let fill = format!(
        "for i = 1, {} do redis.call('XADD', KEYS[1], '*', 's', ARGV[1], 'e', i, 'x', ARGV[2]) end return 1",
        commands::MAX_REVOCATIONS
    );
    let last = ending("last", LIVES);
    let mut eval = redis::cmd("EVAL");
    eval.arg(fill).arg(1).arg("portcullis:{revocations}").arg(&last.scope.0[..]).arg(last.expires_at.0);
    // Slower than any command of ours, so not by the link's deadline.
    let Link::One(mut raw, _driver) = link else { panic!("one server") };
    let _: i64 = eval.query_async(&mut raw).await.unwrap();

    let before = Clock::system().now();
    let append = commands::append(&last.scope.0, &last.entry, last.expires_at);
    let _: i64 = append.query_async(&mut raw).await.unwrap();
    let length: i64 = redis::cmd("XLEN").arg("portcullis:{revocations}").query_async(&mut raw).await.unwrap();
    assert!(length < commands::MAX_REVOCATIONS as i64, "{length}");
    let tail: tail::Page = redis::cmd("XREVRANGE")
        .arg("portcullis:{revocations}")
        .arg("+")
        .arg("-")
        .arg("COUNT")
        .arg(1)
        .query_async(&mut raw)
        .await
        .unwrap();
    let till: u64 = String::from_utf8(tail[0].1[1].1.clone()).unwrap().parse().unwrap();
    assert!(tail[0].1[0].1.is_empty() && till <= before.0 + 2 && till + 60 > before.0);

    // One that comes now reads all of it, and the fold among it.
    let process = Process::connected(single(&server)).await;
    let heard = process.memory.0.lock().unwrap();
    assert!(heard.contains(&Heard::AllBefore(UnixTime(till))));
    assert!(heard.contains(&Heard::Ending(last)));
}

/// Whatever an entry says of its end, it is taken, and the connection that gave it is no worse for it.
#[tokio::test]
async fn an_entry_without_an_end_is_taken() {
    let server = Server::start().await;
    let process = Process::connected(single(&server)).await;
    for expires_at in [UnixTime(u64::MAX), UnixTime(1), UnixTime(0)] {
        let endless = Ending { expires_at, ..ending(&format!("{expires_at:?}"), LIVES) };
        process.store.end(endless).await.unwrap();
        assert!(server.call::<i64>(&["TTL", "portcullis:{revocations}"]).await > 0);
    }
}
