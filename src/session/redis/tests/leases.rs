//! Leases: one holder, renewed, given back, and over when the holder dies.

use super::server::Server;
use super::*;

#[tokio::test]
async fn one_process_at_a_time_holds_a_lease() {
    let server = Server::start().await;
    let (one, other) = (Process::connected(single(&server)).await, Process::connected(single(&server)).await);
    let (scope, ticket, free) = (scope("app"), Ticket::new().unwrap(), Ticket::new().unwrap());
    one.store.create(&scope, &ticket, b"old", IDLE).await.unwrap();

    let lease = one.store.lease(&scope, &ticket).await.unwrap().unwrap();
    assert!(one.store.lease(&scope, &ticket).await.unwrap().is_none(), "not even the same process");
    assert!(other.store.lease(&scope, &ticket).await.unwrap().is_none());
    assert!(other.store.lease(&scope, &free).await.unwrap().is_some(), "another session's is free");

    // A session that was ended meanwhile is not brought back by the refresh.
    other.store.remove(&scope, &ticket).await.unwrap();
    let replaced = one.store.replace(&scope, &ticket, b"new", &lease).await.unwrap();
    assert_eq!(replaced, Replaced::Gone);
    assert!(one.store.load(&scope, &ticket).await.unwrap().is_none());

    drop(lease);
    let until = async {
        while other.store.lease(&scope, &ticket).await.unwrap().is_none() {
            a_moment().await;
        }
    };
    // Given back, not run out.
    tokio::time::timeout(LEASE_LENGTH / 2, until).await.expect("the lease was not given back");
}

#[tokio::test]
async fn a_lease_that_another_took_writes_nothing_and_frees_nothing() {
    let server = Server::start().await;
    let process = Process::connected(single(&server)).await;
    let (scope, ticket) = (scope("app"), Ticket::new().unwrap());
    process.store.create(&scope, &ticket, b"old", IDLE).await.unwrap();
    let late = process.store.lease(&scope, &ticket).await.unwrap().unwrap();
    let name = scope.names(&ticket).lease;
    // Redis forgot it, for example by a failover, and another took it.
    let _: i64 = server.call(&["DEL", &name]).await;
    let newer = process.store.lease(&scope, &ticket).await.unwrap().unwrap();
    let replaced = process.store.replace(&scope, &ticket, b"late", &late).await.unwrap();
    assert_eq!(replaced, Replaced::LeaseLost);
    assert_eq!(process.store.replace(&scope, &ticket, b"new", &newer).await.unwrap(), Replaced::Yes);
    assert!(late.is_held(), "as far as its holder knows");
    let until = async {
        while late.is_held() {
            a_moment().await;
        }
    };
    soon("the holder to notice", until).await;
    drop(late);
    // The answer to this comes after the command that `drop` sent.
    assert!(process.store.lease(&scope, &ticket).await.unwrap().is_none());
    assert!(newer.is_held());
    assert_eq!(*process.store.load(&scope, &ticket).await.unwrap().unwrap().payload, b"new");
}

#[tokio::test]
async fn a_lease_is_renewed_while_it_is_held_and_ends_with_its_holder() {
    let server = Server::start().await;
    let (one, other) = (Process::connected(single(&server)).await, Process::connected(single(&server)).await);
    let (scope, ticket) = (scope("app"), Ticket::new().unwrap());
    let name = scope.names(&ticket).lease;
    let lease = one.store.lease(&scope, &ticket).await.unwrap().unwrap();
    // Shorten what is left, so that only a renewal can bring it back.
    let _: i64 = server.call(&["PEXPIRE", &name, "2500"]).await;
    let until = async {
        while server.call::<i64>(&["PTTL", &name]).await < 3000 {
            a_moment().await;
        }
    };
    soon("a renewal", until).await;
    assert!(other.store.lease(&scope, &ticket).await.unwrap().is_none());

    // The holder dies: nothing is renewed and nothing given back.
    lease.die();
    let _: i64 = server.call(&["PEXPIRE", &name, "100"]).await;
    let until = async {
        while other.store.lease(&scope, &ticket).await.unwrap().is_none() {
            a_moment().await;
        }
    };
    soon("the end of the lease", until).await;
}
