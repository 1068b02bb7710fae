//! Whole sessions in a real store, with tickets in the cookies.

use std::collections::BTreeSet;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use super::server::Server;
use super::*;
use crate::clock::Millis;
use crate::session::{self, Absent, CookieName, KeyRing, NewSession, Sealer, Session, Sessions};

fn sessions(store: Arc<Store>) -> Sessions {
    let ring = KeyRing::parse(&STANDARD.encode([1; 32])).unwrap();
    let [host, issuer, client_id] =
        ["app.example.com", "https://idp.example.com", "client"].map(str::to_owned);
    let binding = Binding { service: "app".to_owned(), host, issuer, client_id };
    let sealer = Sealer::new(Arc::new(ArcSwap::from_pointee(ring)), &binding);
    let config = session::Config {
        cookie_name: CookieName::parse(CookieName::SESSION).unwrap(),
        idle_timeout: IDLE,
        max_lifetime: 10 * IDLE,
        bound_to_token: false,
        refresh_before: Duration::from_secs(60),
    };
    Sessions::new(config, sealer, Clock::system()).with_store(store, scope("app"))
}

fn login(subject: &str) -> Session {
    let now = Clock::system().now();
    let login = NewSession {
        issuer: "https://idp.example.com",
        subject,
        sid: None,
        claims: &serde_json::Map::new(),
        keep: &BTreeSet::new(),
        born: Millis::from(now),
        token_expires_at: now,
        acr: None,
        auth_time: None,
        grant: None,
        id_token: None,
        replaced: Vec::new(),
    };
    Session::new(login, now).unwrap()
}

/// The cookie of a session, as a browser sends it.
fn pair(sessions: &Sessions, session: &Session) -> String {
    let fields = sessions.seal(session, &HeaderMap::new()).unwrap();
    assert_eq!(fields.len(), 1, "a ticket is small");
    fields[0].to_str().unwrap().split(';').next().unwrap().to_owned()
}

fn request(pairs: &[&str]) -> HeaderMap {
    HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(&pairs.join("; ")).unwrap())])
}

#[tokio::test]
async fn a_session_goes_into_the_store_and_comes_back_by_its_ticket() {
    let server = Server::start().await;
    let process = Process::connected(single(&server)).await;
    let sessions = sessions(process.store.clone());
    assert!(sessions.are_stored());
    assert_eq!(sessions.scope().map(Scope::id), Some(scope("app").id()));
    assert_eq!((sessions.check_store(), sessions.store_outage()), (Ok(()), None));

    let (mut alice, mut bob) = (login("alice"), login("bob"));
    for session in [&mut alice, &mut bob] {
        sessions.put(session).await.unwrap();
        assert!(session.ticket.is_some());
    }
    let (hers, his) = (pair(&sessions, &alice), pair(&sessions, &bob));
    let ticket = sessions.ticket(&request(&[&hers])).unwrap();
    assert!(Some(&ticket) == alice.ticket.as_ref());
    let loaded = sessions.load(&ticket).await.unwrap();
    assert!(loaded.is_same_login(&alice));
    assert!(
        loaded.sealed_at.since(alice.sealed_at) < IDLE && alice.sealed_at.since(loaded.sealed_at) < IDLE / 2
    );
    // A copy is the same ticket; two tickets are nobody's.
    assert!(sessions.ticket(&request(&[&hers, &hers])).unwrap() == ticket);
    assert_eq!(sessions.ticket(&request(&[&hers, &his])).err(), Some(Absent::Ambiguous));

    sessions.remove(&alice).await;
    assert_eq!(sessions.load(&ticket).await.err(), Some(Absent::NotInStore));
    assert!(sessions.load(bob.ticket.as_ref().unwrap()).await.is_ok());
}

/// What a stream moves keeps its session in the store as well, and asks no more of it than requests would.
#[tokio::test]
async fn use_that_is_no_request_moves_the_idle_end_now_and_then() {
    let server = Server::start().await;
    let process = Process::connected(single(&server)).await;
    let sessions = sessions(process.store.clone());
    let mut alice = login("alice");
    sessions.put(&mut alice).await.unwrap();
    let ticket = alice.ticket.clone().unwrap();
    let record = scope("app").names(&ticket).record;
    let begun = Clock::system().now();
    let age = sessions.seal_age();
    let almost = age - Duration::from_secs(1);
    for (after, told) in [
        (Duration::ZERO, true),
        (Duration::ZERO, false),
        (almost, false),
        (age, true),
        (age + almost, false),
        (2 * age, true),
    ] {
        let _: i64 = server.call(&["PEXPIRE", &record, "60000"]).await;
        sessions.touch_soon(&alice, begun.plus(after));
        // It is sent while the first of these waits for its answer, so the second one comes after it.
        sessions.load(&ticket).await.unwrap();
        let left = process.store.load(&scope("app"), &ticket).await.unwrap().unwrap().idle_left;
        assert_eq!(left > Duration::from_secs(60), told, "after {after:?}: {left:?}");
        assert!(left <= IDLE);
    }
}

#[tokio::test]
async fn without_the_store_nobody_is_believed() {
    let process = Process::started(config("redis://127.0.0.1:1", Topology::Single));
    let sessions = sessions(process.store.clone());
    assert_eq!(sessions.check_store(), Err(Absent::StoreUnavailable));
    let outage = sessions.store_outage().unwrap();
    assert_eq!(Some(outage), process.store.outage().map(|outage| outage.to_string()));
    let mut alice = login("alice");
    assert!(sessions.put(&mut alice).await.is_err() && alice.ticket.is_none());
}
