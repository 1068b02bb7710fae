//! Ends that come again, and what is shown of them.

use super::*;

/// The second end of a person is about the logins since the first too, and takes the place of it.
#[test]
fn the_latest_end_of_somebody_counts() {
    let service = service();
    let alice = Entry::Subject { issuer: ISSUER, subject: "alice" };
    let first = service.login("alice", None);
    service.end(alice, Why::BackChannel);
    let second = service.login("alice", None);
    assert_eq!((service.ended(&first), service.ended(&second)), (Some(Why::BackChannel), None));
    let before = service.revocations.known();
    service.end(alice, Why::Admin);
    let third = service.login("alice", None);
    let ended = [&first, &second, &third].map(|session| service.ended(session));
    assert_eq!(ended, [Some(Why::Admin), Some(Why::Admin), None]);
    let [latest] = service.revocations.known()[..] else { panic!("one entry is left") };
    assert!(latest.made() > before[0].made());
    // What another process tells late changes nothing.
    service.revocations.learn(before[0]);
    assert_eq!(service.ended(&second), Some(Why::Admin));
    assert_eq!(service.revocations.known(), [latest]);
}

/// Of what was ended, a list that folds forgets who, and never that.
#[test]
fn the_same_end_again_is_not_a_second_entry() {
    let mut list = List::of_at_most(3);
    let entries: Vec<Revocation> = ["a", "b", "a", "c", "a"]
        .iter()
        .zip(1..)
        .map(|(subject, made)| {
            let entry = Entry::Subject { issuer: ISSUER, subject };
            Revocation::new(entry, Why::Logout, Millis(made), START.plus(LIFETIME))
        })
        .collect();
    for entry in &entries {
        assert_eq!(list.put(*entry, START), None, "three people fit");
    }
    let made: Vec<u64> = list.revocations().map(|revocation| revocation.made().0).collect();
    assert_eq!(made, [2, 4, 5], "the oldest first, and each once");
    assert!(list.holds(&entries[4]) && !list.holds(&entries[0]));
}

#[test]
fn what_is_shown_of_an_end_is_not_whose() {
    let service = service();
    let session = service.login("alice", None);
    for (entry, shown) in [
        (Entry::ProviderSession { issuer: ISSUER, sid: "the-sid" }, "ProviderSession".to_owned()),
        (Entry::Subject { issuer: ISSUER, subject: "alice" }, "Subject".to_owned()),
        (Entry::Unplaced { issuer: ISSUER, subject: "alice" }, "Unplaced".to_owned()),
        (Entry::Everything, "Everything".to_owned()),
        // The id of a session is in the log on purpose, and is no credential.
        (Entry::Session(session.id), format!("Session({})", session.id)),
    ] {
        assert_eq!(format!("{entry:?}"), shown);
    }
    let shown = format!("{:?}", service.revocations);
    assert!(shown.starts_with("Revocations { service: \"app\"") && !shown.contains("alice"), "{shown}");
}
