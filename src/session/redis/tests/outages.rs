//! Outages of every kind: named, told once, and over by themselves.

use tokio::time::Instant;

use super::server::{Server, free_port};
use super::*;

/// A second outside of tests; these share two processors with others.
const BACK: Duration = Duration::from_secs(4);

/// The store is believed again, and quickly.
async fn recovers(process: &Process) {
    let begun = Instant::now();
    process.works().await;
    assert!(begun.elapsed() < BACK, "{:?}", begun.elapsed());
}

fn is_unreachable(outage: &Unavailable) -> bool {
    matches!(outage, Unavailable::Unreachable { .. })
}

#[tokio::test]
async fn a_server_that_comes_later_goes_and_comes_back() {
    let port = free_port();
    let process = Process::started(config(&format!("redis://127.0.0.1:{port}"), Topology::Single));
    assert!(!process.store.is_fresh() && process.store.outage() == Some(Unavailable::NotYet));
    let outage = process.fails_with(is_unreachable).await;
    assert!(outage.to_string().contains(&port.to_string()), "{outage}");
    let (scope, ticket) = (scope("app"), Ticket::new().unwrap());
    let error = process.store.create(&scope, &ticket, b"p", IDLE).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)));

    assert!(is_unreachable(&try_once(&process.store.config).await.unwrap_err()));

    let mut server = Server::at(port, &[]).await;
    assert_eq!(try_once(&process.store.config).await, Ok(()));
    recovers(&process).await;
    process.store.create(&scope, &ticket, b"p", IDLE).await.unwrap();
    for _ in 0..2 {
        server.kill();
        process.fails_with(is_unreachable).await;
        server.start_again().await;
        recovers(&process).await;
    }
    // One event for each change, however many attempts there were.
    let told = process.told();
    assert_eq!(told.len(), 6, "{told:?}");
    for (number, event) in told.iter().enumerate() {
        assert_eq!(matches!(event, Event::Available), number % 2 == 1, "{told:?}");
    }
}

#[tokio::test]
async fn a_hung_server_is_down_and_nobody_waits_long() {
    let server = Server::start().await;
    let process = Process::connected(single(&server)).await;
    let (scope, ticket) = (scope("app"), Ticket::new().unwrap());
    for stop in ["SIGSTOP", "CLIENT PAUSE"] {
        if stop == "SIGSTOP" {
            server.freeze();
        } else {
            let _: String = server.call(&["CLIENT", "PAUSE", "3000", "ALL"]).await;
        }
        let begun = Instant::now();
        let error = process.store.load(&scope, &ticket).await.map(|loaded| loaded.is_some()).unwrap_err();
        assert!(matches!(error, Unavailable::Slow(_)), "{stop}: {error}");
        assert!(begun.elapsed() < 2 * COMMAND_DEADLINE, "{stop}: {:?}", begun.elapsed());
        let until = async {
            while process.store.is_fresh() {
                a_moment().await;
            }
        };
        soon("staleness", until).await;
        assert!(begun.elapsed() < 2 * MAX_STALENESS, "{stop}: {:?}", begun.elapsed());
        process.fails_with(|outage| matches!(outage, Unavailable::Slow(_))).await;
        if stop == "SIGSTOP" {
            server.thaw();
        }
        let until = async {
            while !process.store.is_fresh() {
                a_moment().await;
            }
        };
        soon("recovery", until).await;
        process.works().await;
        process.store.create(&scope, &ticket, b"p", IDLE).await.unwrap();
    }
}

/// A link whose looks have ceased is no link: what ended meanwhile is not known.
#[tokio::test]
async fn a_link_that_nobody_looks_at_is_down() {
    let server = Server::start().await;
    let process = Process::connected(single(&server)).await;
    process.connection.abort();
    let until = async {
        while process.store.is_fresh() {
            a_moment().await;
        }
    };
    soon("staleness", until).await;
    assert_eq!(process.store.outage(), Some(Unavailable::no_answer()));
}

/// The task that reads answers goes with its link, whatever it waits for.
#[tokio::test]
async fn nothing_is_left_of_a_link_that_was_dropped() {
    let server = Server::start().await;
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    let settings = redis::RedisConnectionInfo::default().set_skip_set_lib_name();
    let made = redis::aio::MultiplexedConnection::new_with_config(&settings, stream, Default::default());
    let (connection, driver) = made.await.unwrap();
    let (kept, gone) = tokio::sync::oneshot::channel::<()>();
    let link = Link::one(connection, async move {
        let _kept = kept;
        driver.await;
        std::future::pending().await
    });
    let _: String = link.run(&redis::cmd("PING")).await.unwrap();
    drop(link);
    assert!(soon("the end of the task", gone).await.is_err());
}

#[tokio::test]
async fn a_server_that_only_reads_is_down() {
    let (server, master) = (Server::start().await, Server::start().await);
    let process = Process::connected(single(&server)).await;
    let _: String = server.call(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]).await;
    process.fails_with(|outage| *outage == Unavailable::ReadOnly).await;
    let _: String = server.call(&["REPLICAOF", "NO", "ONE"]).await;
    recovers(&process).await;

    // Takes no writes, for another reason.
    let _: String = server.call(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    process.fails_with(|outage| *outage == Unavailable::Refusing("NOREPLICAS".to_owned())).await;
    let _: String = server.call(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    recovers(&process).await;
}

/// The rights of docs/sessions-redis.md are enough, and fewer are said to be too few.
#[tokio::test]
async fn the_documented_rights_are_enough() {
    let server = Server::start().await;
    let words = documented_user();
    let _: String = server.call(&words).await;
    let (user, password) = (words[2], words.iter().find_map(|word| word.strip_prefix('>')).unwrap());
    let url = |password: &str| format!("redis://{user}:{password}@127.0.0.1:{}", server.port);
    let process = Process::connected(config(&url(password), Topology::Single)).await;
    let (scope, ticket) = (scope("app"), Ticket::new().unwrap());
    process.store.create(&scope, &ticket, b"p", IDLE).await.unwrap();
    assert!(process.store.load(&scope, &ticket).await.unwrap().is_some());
    assert!(process.store.touch(&scope, &ticket, IDLE).await.unwrap());
    let lease = process.store.lease(&scope, &ticket).await.unwrap().unwrap();
    assert_eq!(process.store.replace(&scope, &ticket, b"q", &lease).await.unwrap(), Replaced::Yes);
    drop(lease);
    let until = async {
        while process.store.lease(&scope, &ticket).await.unwrap().is_none() {
            a_moment().await;
        }
    };
    soon("the lease", until).await;
    assert!(process.store.remove(&scope, &ticket).await.unwrap());
    process.store.end(ending("e", IDLE)).await.unwrap();
    process.knows(&ending("e", IDLE)).await;

    // No command that is permitted is superfluous.
    for right in words.iter().filter(|word| word.starts_with('+')) {
        if right.contains("cluster") {
            continue;
        }
        let less = format!("-{}", right.trim_start_matches('+'));
        let _: String = server.call(&["ACL", "SETUSER", user, &less]).await;
        // Everything is needed when there is nothing yet.
        let _: i64 = server.call(&["DEL", "portcullis:{revocations}"]).await;
        let error = soon(right, uses_everything(&process)).await.unwrap_err();
        assert!(matches!(error, Unavailable::Forbidden), "{right}: {error}");
        let _: String = server.call(&["ACL", "SETUSER", user, right]).await;
        process.works().await;
    }
    let wrong = Process::started(config(&url("wrong-s3cret"), Topology::Single));
    let outage = wrong.fails_with(|outage| *outage == Unavailable::Credentials).await;
    let shown = format!("{outage} {outage:?} {:?} {:?}", wrong.store, wrong.told());
    assert!(!shown.contains("s3cret") && !shown.contains(user), "{shown}");
}

async fn uses_everything(process: &Process) -> Result<(), Unavailable> {
    let (scope, ticket) = (scope("app"), Ticket::new().unwrap());
    let unavailable = |error| match error {
        StoreError::Unavailable(unavailable) => unavailable,
        other => panic!("{other}"),
    };
    loop {
        process.store.create(&scope, &ticket, b"p", IDLE).await.map_err(unavailable)?;
        process.store.load(&scope, &ticket).await?;
        process.store.touch(&scope, &ticket, IDLE).await?;
        if let Some(lease) = process.store.lease(&scope, &ticket).await? {
            process.store.replace(&scope, &ticket, b"q", &lease).await.map_err(unavailable)?;
        }
        process.store.remove(&scope, &ticket).await?;
        process.store.end(Ending { expires_at: UnixTime(1), ..ending("past", IDLE) }).await?;
        process.store.end(ending("e", IDLE)).await?;
        // What the looks themselves need.
        if let Some(outage) = process.store.outage() {
            return Err(outage);
        }
    }
}

#[tokio::test]
async fn more_commands_than_the_bound_fail_at_once() {
    let server = Server::start().await;
    let process = Process::connected(single(&server)).await;
    server.freeze();
    let (scope, ticket) = (scope("app"), Ticket::new().unwrap());
    let loads = (0..MAX_IN_FLIGHT + 50).map(|_| process.store.load(&scope, &ticket));
    let outcomes = futures_util::future::join_all(loads).await;
    server.thaw();
    let busy = outcomes.iter().filter(|outcome| matches!(outcome, Err(Unavailable::Busy))).count();
    assert!(busy >= 50, "{busy}");
    assert!(outcomes.iter().all(Result::is_err));
    process.works().await;
    assert!(process.store.load(&scope, &ticket).await.unwrap().is_none(), "all of them were given back");
}

#[tokio::test]
async fn attempts_are_a_second_apart_and_told_once() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let process = Process::started(config(&url, Topology::Single));
    let mut attempts = Vec::new();
    while attempts.len() < 4 {
        // Closed at once, which is the quickest way to fail.
        drop(soon("an attempt", listener.accept()).await.unwrap());
        attempts.push(Instant::now());
    }
    for pair in attempts.windows(2) {
        // From accept to accept, so a little less is possible.
        assert!(pair[1] - pair[0] > Duration::from_millis(800), "{attempts:?}");
    }
    let told = process.told();
    assert!(matches!(told.as_slice(), [Event::Unavailable(_)]), "{told:?}");
}
