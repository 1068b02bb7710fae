//! How long a session lives: the idle and the absolute bound, and a clock that was wrong.

use super::*;

#[test]
fn ses_06_bounds_are_kept_here_and_not_by_the_browser() {
    let minutes = |count: u64| Duration::from_secs(count * 60);
    let cases = [
        (minutes(59), false, Ok(())),
        (minutes(60), false, Err(Absent::IdleTimeout)),
        (minutes(12 * 60), false, Err(Absent::MaxLifetime)),
        (minutes(59), true, Ok(())),
        (minutes(60), true, Err(Absent::TokenExpired)),
    ];
    for (later, bound_to_token, expected) in cases {
        let service = service_with(Config { bound_to_token, ..config() }, &binding());
        let value = service.value(&alice());
        let cached = service.open_value(&value).unwrap();
        service.clock.advance(later);
        assert_eq!(service.open_value(&value).map(|_| ()), expected, "{later:?}");
        assert_eq!(service.sessions.check(&cached), expected, "{later:?} cached");
    }
}

#[test]
fn ses_06_use_prolongs_the_idle_bound_and_never_the_absolute_one() {
    let service = service();
    let mut session = alice();
    let mut value = service.value(&session);
    let id = session.id;
    let mut seals = 0;
    let end = loop {
        service.clock.advance(MINUTE);
        match service.open_value(&value) {
            Ok(opened) => session = opened,
            Err(end) => break end,
        }
        assert_eq!(session.id, id);
        assert_eq!(service.sessions.expires_at(&session), START.plus(12 * HOUR));
        if service.sessions.needs_new_seal(&session) {
            value = service.value(&session);
            seals += 1;
        }
    };
    assert_eq!(end, Absent::MaxLifetime);
    assert_eq!(service.sessions.clock.now(), START.plus(12 * HOUR));
    assert_eq!(seals, 119, "one every six minutes");
}

/// By the bytes of a stream, which no cookie tells of.
#[test]
fn use_that_is_no_request_prolongs_the_idle_bound_and_never_the_absolute_one() {
    let service = service();
    let value = service.value(&alice());
    let session = service.open_value(&value).unwrap();
    for _ in 0..14 {
        service.clock.advance(50 * MINUTE);
        let now = service.sessions.clock.now();
        service.sessions.note_use(&session);
        let opened = service.open_value(&value).unwrap();
        assert!(service.sessions.needs_new_seal(&opened));
        assert_eq!(service.sessions.check(&session), Ok(()));
        assert_eq!(service.sessions.idle_expires_at(&session), now.plus(HOUR).min(START.plus(12 * HOUR)));
    }
    // Another session is not in use for that.
    let other = service.sessions.clone();
    assert_eq!(other.check(&Session { sealed_at: START, ..alice() }), Err(Absent::IdleTimeout));
    service.clock.advance(20 * MINUTE);
    assert_eq!(service.sessions.check(&session), Err(Absent::MaxLifetime));
}

#[test]
fn use_that_is_over_or_in_the_future_prolongs_nothing() {
    let service = service();
    let session = service.open_value(&service.value(&alice())).unwrap();
    service.clock.advance(50 * MINUTE);
    service.sessions.note_use(&session);
    service.clock.advance(59 * MINUTE);
    assert_eq!(service.sessions.check(&session), Ok(()));
    service.clock.advance(MINUTE);
    assert_eq!(service.sessions.check(&session), Err(Absent::IdleTimeout));
    // Noted by a clock that was ahead.
    service.clock.advance(2 * HOUR);
    service.sessions.note_use(&session);
    service.clock.set(START.plus(HOUR));
    assert_eq!(service.sessions.check(&session), Err(Absent::IdleTimeout));
}

#[test]
fn expiry_is_the_earliest_bound() {
    let service = service_with(Config { bound_to_token: true, ..config() }, &binding());
    let mut session = alice();
    assert_eq!(service.sessions.expires_at(&session), START.plus(HOUR));
    session.token_expires_at = START.plus(2 * HOUR);
    assert_eq!(service.sessions.idle_expires_at(&session), START.plus(HOUR));
    session.sealed_at = START.plus(HOUR + MINUTE);
    assert_eq!(service.sessions.idle_expires_at(&session), START.plus(2 * HOUR));
}

#[test]
fn a_clock_that_was_wrong_prolongs_nothing_and_locks_nobody_out() {
    let service = service();
    // The clock was a year ahead at the login and is then put right.
    service.clock.advance(365 * 24 * HOUR);
    let mut session = alice();
    session.logged_in_at = service.sessions.clock.now();
    let value = service.value(&session);
    assert!(service.open_value(&value).is_ok());
    service.clock.set(START);
    assert_eq!(service.open_value(&value), Err(Absent::FromTheFuture));
    assert!(service.open_value(&service.value(&alice())).is_ok(), "a new login works");

    // The clock jumps back while a session lives: the last seal shows it.
    service.clock.set(START.plus(2 * HOUR));
    let value = service.value(&alice());
    service.clock.set(START.plus(HOUR));
    assert_eq!(service.open_value(&value), Err(Absent::FromTheFuture));

    // A replica whose clock is right seals nothing on for one whose clock was wrong.
    let mut session = alice();
    session.logged_in_at = START.plus(2 * HOUR);
    assert_eq!(service.sessions.check(&session), Err(Absent::FromTheFuture));

    // Replicas are never quite of one mind about the time.
    service.clock.set(START.minus(MINUTE));
    assert!(service.open_value(&service.value(&alice())).is_ok());
    service.clock.set(START.minus(MINUTE + Duration::from_secs(1)));
    assert_eq!(service.sessions.check(&alice()), Err(Absent::FromTheFuture));
}

/// A session in the store lives on when the clock is put right; a refresh that was dated in the future must not be
/// the last one for so long.
#[test]
fn a_grant_that_is_dated_in_the_future_is_due() {
    let service = service();
    let grant = |received_at: UnixTime| Grant {
        refresh_token: crate::secret::Secret::new("token".to_owned()),
        nonce: "nonce".to_owned(),
        received_at,
        expires_at: received_at.plus(HOUR),
        from_user_info: Default::default(),
    };
    for (received_at, is_fine) in [
        (START, true),
        (START.plus(MINUTE), true),
        (START.plus(2 * MINUTE), false),
        (START.plus(24 * HOUR), false),
    ] {
        let session = Session { grant: Some(grant(received_at)), ..alice() };
        let expected = if is_fine { Ok(()) } else { Err(Absent::FromTheFuture) };
        assert_eq!(service.sessions.check(&session), expected, "{received_at:?}");
    }
}
