//! What logs and panics show of sessions: ids and times to find them by, and never whose they are.

use super::*;
use crate::session::revocation::Entry;

#[test]
fn a_session_is_shown_by_its_id_and_times() {
    let session = alice();
    let id = session.id.to_string();
    assert_eq!(id.len(), 22, "128 bits in base64url");
    assert_eq!(SessionId::parse(&id), Some(session.id));
    let shown = format!("{session:?}");
    assert!(shown.contains(&id) && shown.contains("logged_in_at") && shown.contains("sealed_at"), "{shown}");
    assert_eq!(format!("{:?}", session.id), id);
}

#[test]
fn a_grant_is_shown_by_its_end() {
    let grant = Grant {
        refresh_token: crate::secret::Secret::new("refresh-token".to_owned()),
        nonce: "the-nonce".to_owned(),
        received_at: START,
        expires_at: START.plus(HOUR),
        from_user_info: BTreeSet::new(),
    };
    assert_eq!(format!("{grant:?}"), format!("Grant {{ expires_at: {:?}, .. }}", START.plus(HOUR)));
}

/// The ids of keys tell whether two processes have the same ones, and nothing about the keys.
#[test]
fn keys_are_shown_by_ids_that_tell_them_apart() {
    let (one, two) = (ring(&[1, 2]), ring(&[3]));
    let ids: Vec<String> = one.ids().chain(two.ids()).map(|id| id.to_string()).collect();
    assert!(ids.iter().all(|id| id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit())), "{ids:?}");
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
    assert_eq!(format!("{one:?} {two:?}"), format!("[{}, {}] [{}]", ids[0], ids[1], ids[2]));
    assert_eq!(ring(&[1, 2]).ids().map(|id| id.to_string()).collect::<Vec<_>>(), ids[..2]);
}

#[test]
fn what_is_ended_is_shown_by_its_kind() {
    let id = alice().id;
    for (entry, shown) in [
        (Entry::Session(id), format!("Session({id})")),
        (Entry::ProviderSession { issuer: "https://idp.test", sid: "s1" }, "ProviderSession".to_owned()),
        (Entry::Subject { issuer: "https://idp.test", subject: "alice" }, "Subject".to_owned()),
        (Entry::Unplaced { issuer: "https://idp.test", subject: "alice" }, "Unplaced".to_owned()),
        (Entry::Everything, "Everything".to_owned()),
    ] {
        assert_eq!(format!("{entry:?}"), shown);
    }
}

#[test]
fn names_of_cookies_are_shown_as_they_are() {
    let name = CookieName::parse(CookieName::SESSION).unwrap();
    assert_eq!(format!("{name} {name:?}"), "__Host-portcullis \"__Host-portcullis\"");
}
