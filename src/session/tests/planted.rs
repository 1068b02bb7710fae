//! Cookies that others put beside ours, and Cookie fields that nobody should send.

use proptest::prelude::*;

use super::*;

#[test]
fn ses_09_of_several_cookies_of_one_name_only_ours_counts() {
    let service = service();
    let foreign = service_with(config(), &Binding { service: "other".into(), ..binding() }).value(&alice());
    let expired = {
        let mut session = alice();
        session.logged_in_at = START.minus(13 * HOUR);
        service.value(&session)
    };
    let mine = service.value(&alice());
    let mut flipped = mine.clone();
    flipped.replace_range(60..61, if &mine[60..61] == "A" { "B" } else { "A" });
    for planted in ["", "x", "\"\"", flipped.as_str(), foreign.as_str(), expired.as_str()] {
        for copies in [1, 50] {
            let planted = vec![(CookieName::SESSION, planted); copies];
            let mine = [(CookieName::SESSION, mine.as_str())];
            for pairs in [[&planted[..], &mine].concat(), [&mine, &planted[..]].concat()] {
                assert_eq!(service.sessions.open(&request(&pairs)).unwrap().subject, "alice");
            }
        }
    }
}

#[test]
fn ses_09_planted_parts_don_t_take_the_place_of_ours() {
    let service = service();
    let session = large(8 * 1024);
    let mine = service.cookies(&session);
    let other = service.cookies(&large(8 * 1024));
    for (first, second) in [(&mine, &other), (&other, &mine)] {
        // All parts of ours, and all but the first of the other.
        let mut cookies = first.clone();
        cookies.extend(second.iter().cloned());
        cookies.retain(|cookie| cookie.1 != other[0].1);
        assert!(service.sessions.open(&request(&cookies)).unwrap() == session);
    }
}

#[test]
fn ses_09_two_live_sessions_are_nobody_s() {
    let service = service();
    let mut mallory = alice();
    mallory.subject = "mallory".into();
    mallory.id = login(&Claims::new()).id;
    let (mine, planted) = (service.value(&alice()), service.value(&mallory));
    for pair in [[&mine, &planted], [&planted, &mine]] {
        let pairs = pair.map(|value| (CookieName::SESSION, value));
        assert_eq!(service.sessions.open(&request(&pairs)), Err(Absent::Ambiguous));
    }
}

#[test]
fn ses_09_two_seals_of_one_session_are_one_session() {
    let service = service();
    let session = alice();
    let old = service.value(&session);
    service.clock.advance(10 * MINUTE);
    let new = service.value(&session);
    for pair in [[&old, &new], [&new, &old]] {
        let pairs = pair.map(|value| (CookieName::SESSION, value));
        assert_eq!(service.sessions.open(&request(&pairs)).unwrap().sealed_at, START.plus(10 * MINUTE));
    }
}

#[test]
fn ses_09_the_work_for_planted_cookies_is_bounded() {
    let service = service();
    let mine = (CookieName::SESSION, service.value(&alice()));
    let planted = (CookieName::SESSION, "x".to_owned());
    let mut pairs = vec![planted; parts::MAX_TRIES - 1];
    pairs.push(mine);
    assert!(service.sessions.open(&request(&pairs)).is_ok());
    pairs.insert(0, (CookieName::SESSION, "x".to_owned()));
    assert_eq!(service.sessions.open(&request(&pairs)), Err(Absent::Unreadable));
}

#[test]
fn ses_14_odd_cookie_fields_are_read_as_far_as_they_go() {
    let service = service();
    let mine = format!("__Host-portcullis={}", service.value(&alice()));
    let thousand: String = (0..1000).map(|number| format!("a{number}=b; ")).collect();
    let long = format!("a={}", "b".repeat(60 * 1024));
    let odd: [&[u8]; 14] = [
        b";;;=;",
        b"=",
        b"a",
        b"\"",
        b"a=\"b; c\"",
        b"\xe9=\xff",
        b"__Host-portcullis=\xff\xfe",
        b"__Host-portcullis=",
        b"__Host-portcullis",
        b"__Host-portcullis==",
        b"__Host-portcullis.1=x",
        b"\t;\t \t;a = b",
        thousand.as_bytes(),
        long.as_bytes(),
    ];
    for odd in odd {
        assert!(service.sessions.open(&cookie_field(odd)).is_err());
        for field in [[odd, b"; ", mine.as_bytes()].concat(), [mine.as_bytes(), b";", odd].concat()] {
            assert!(service.sessions.open(&cookie_field(&field)).is_ok(), "{}", odd.escape_ascii());
        }
    }
    assert_eq!(service.sessions.open(&HeaderMap::new()), Err(Absent::NoCookie));
    assert_eq!(service.sessions.open(&cookie_field(b"a=b")), Err(Absent::NoCookie));
    assert_eq!(service.sessions.open(&cookie_field(b"__Host-portcullis.1=x")), Err(Absent::Incomplete));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// SES-14: no Cookie field makes anything fail, or yields a session that we did not seal.
    #[test]
    fn ses_14_any_cookie_field_is_survived(
        fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
        odd in prop::collection::vec("(__Host-portcullis|[.]|[0-9]{1,9}|=|;| |\"|a|-login){0,30}", 0..4),
    ) {
        let service = service();
        let mut headers = HeaderMap::new();
        for field in fields.into_iter().chain(odd.into_iter().map(String::into_bytes)) {
            // HTTP itself refuses controls in a field.
            headers.extend(HeaderValue::from_bytes(&field).ok().map(|field| (COOKIE, field)));
        }
        prop_assert!(service.sessions.open(&headers).is_err());
        prop_assert!(service.sessions.clear(&headers).len() <= 32);
        let _ = service.sessions.cookie_key(&headers);
        let stripped = OwnCookies::new(vec![]).strip(&headers);
        if let Stripped::Replaced(Some(left)) = stripped {
            let again = OwnCookies::new(vec![]).strip(&cookie_field(left.as_bytes()));
            prop_assert_eq!(again, Stripped::Unchanged);
        }
    }
}
