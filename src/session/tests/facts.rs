//! What a session says of itself: whose it is, when it is due, how much it holds, and its payload.

use super::*;
use crate::secret::Secret;

fn grant(received: u64, expires: u64) -> Grant {
    Grant {
        refresh_token: Secret::new("refresh-token".to_owned()),
        nonce: "nonce".to_owned(),
        received_at: UnixTime(START.0 + received),
        expires_at: UnixTime(START.0 + expires),
        from_user_info: BTreeSet::new(),
    }
}

#[test]
fn a_session_is_due_ahead_of_its_tokens_end_by_at_most_half_of_their_life() {
    let service = service();
    assert_eq!(service.sessions.due_at(&alice()), None, "without a grant it is never refreshed");
    for (received, expires, due) in [(0, 3600, 3540), (0, 120, 60), (0, 60, 30), (100, 110, 105), (5, 5, 5)] {
        let session = Session { grant: Some(grant(received, expires)), ..alice() };
        assert_eq!(service.sessions.due_at(&session), Some(UnixTime(START.0 + due)), "{received} {expires}");
    }
}

/// A clock that is off by more than is tolerated must not prolong a session, whichever of its times tells.
#[test]
fn no_time_of_a_session_may_be_later_than_clocks_differ() {
    let service = service();
    let latest = START.plus(MAX_CLOCK_DIFFERENCE);
    let ahead = |more: u64| latest.plus(Duration::from_secs(more));
    for (more, expected) in [(0, Ok(())), (1, Err(Absent::FromTheFuture))] {
        let of_grant = Grant { received_at: ahead(more), expires_at: ahead(600), ..grant(0, 0) };
        for session in [
            Session { logged_in_at: ahead(more), ..alice() },
            Session { sealed_at: ahead(more), ..alice() },
            Session { grant: Some(of_grant), ..alice() },
        ] {
            assert_eq!(service.sessions.check(&session), expected, "{more}");
        }
    }
}

/// Two sessions are one login if nothing of who it is differs.
#[test]
fn the_same_login_is_of_the_same_person_at_the_same_provider() {
    let session = alice();
    let refreshed = Session { revision: 7, sealed_at: START.plus(HOUR), ..session.clone() };
    assert!(session.is_same_login(&refreshed));
    assert!(!session.is_same_login(&Session { subject: "bob".to_owned(), ..session.clone() }));
    assert!(!session.is_same_login(&Session { issuer: "https://other.test".to_owned(), ..session.clone() }));
    assert!(!session.is_same_login(&Session { id: alice().id, ..session.clone() }));
}

#[test]
fn the_size_counts_claims_and_tokens() {
    let bare = login(&claims(json!({"a": "b", "cd": [1, 2]})));
    assert_eq!(bare.text_bytes(), 1 + r#""b""#.len() + 2 + "[1,2]".len());
    let hinted = Session { id_token: Some(Secret::new("1234567".to_owned())), ..bare.clone() };
    assert_eq!(hinted.text_bytes(), bare.text_bytes() + 7);
    let both = Session { grant: Some(grant(0, 1)), ..hinted };
    assert_eq!(both.text_bytes(), bare.text_bytes() + 7 + "refresh-token".len());
}

/// What is not there takes no room in a cookie, and what is there comes back.
#[test]
fn a_payload_holds_what_there_is() {
    let payload = |session: &Session| -> serde_json::Value {
        let bytes = session.to_payload(START).unwrap();
        let read = Session::from_payload(&bytes).unwrap();
        assert!(read == *session);
        serde_json::from_slice(&bytes).unwrap()
    };
    let bare = Session { sid: None, acr: None, auth_time: None, ..alice() };
    let text = payload(&bare);
    for name in ["sid", "acr", "at", "r", "g", "t"] {
        assert!(text.get(name).is_none(), "{name}");
    }
    let full = Grant { from_user_info: BTreeSet::from(["groups".to_owned()]), ..grant(0, 60) };
    let text = payload(&Session { revision: 3, grant: Some(full), ..bare.clone() });
    assert_eq!((&text["r"], &text["g"]["u"]), (&json!(3), &json!(["groups"])));
    let text = payload(&Session { grant: Some(grant(0, 60)), ..bare });
    assert!(text["g"].get("u").is_none());
}

/// The ID token only spares a question at the logout: a session that is too large with it goes without.
#[test]
fn an_id_token_that_does_not_fit_is_left_out() {
    let service = service();
    let token = |bytes: usize| Some(Secret::new("t".repeat(bytes)));
    // Random enough that it stays as long as it is.
    let noise: String = (0..4000).map(|_| SessionId::new().unwrap().to_string()).collect();
    let session = Session { id_token: Some(Secret::new(noise)), ..alice() };
    let opened = service.open_value(&service.value(&session)).unwrap();
    assert!(opened.id_token.is_none() && opened.is_same_login(&session));
    assert_eq!(service.sessions.fits(&session), Ok(()));
    let small = Session { id_token: token(100), ..alice() };
    assert!(service.open_value(&service.value(&small)).unwrap().id_token == token(100));
    assert!(service.sessions.fits(&large(100 * 1024)).is_err());
}

/// Whoever keeps what the keys made asks by number whether they are still the same.
#[test]
fn each_loaded_ring_has_a_number_of_its_own() {
    let service = service();
    let number = service.ring.load().number();
    let sealer = Sealer::new(service.ring.clone(), &binding());
    assert_eq!(sealer.ring(), number);
    let mut seen = BTreeSet::from([number]);
    for _ in 0..3 {
        service.ring.store(Arc::new(ring(&[1])));
        assert!(seen.insert(sealer.ring()), "the same keys, loaded again");
    }
}

#[test]
fn sessions_without_a_store_want_none() {
    let sessions = service().sessions;
    assert!(!sessions.are_stored() && sessions.scope().is_none());
    assert_eq!((sessions.check_store(), sessions.store_outage()), (Ok(()), None));
}
