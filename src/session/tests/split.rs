//! Sessions of several cookies: complete, incomplete, mixed, too large.

use super::*;
use crate::secret::Secret;
use crate::session::LargestPart;

#[test]
fn ses_08_twenty_kib_of_claims_in_parts_within_browser_limits() {
    let service = service();
    let session = large(20 * 1024);
    let fields = service.sessions.seal(&session, &HeaderMap::new()).unwrap();
    assert!((6..=parts::MAX_PARTS).contains(&fields.len()), "{}", fields.len());
    assert!(fields.iter().all(|field| field.len() <= parts::MAX_COOKIE_BYTES));
    assert!(
        fields[0].len() > parts::MAX_COOKIE_BYTES - 16,
        "a part uses the room it has: {}",
        fields[0].len()
    );

    let mut cookies = kept(&fields);
    let headers = request(&cookies);
    assert!(headers[COOKIE].len() <= parts::MAX_SENT_BYTES);
    assert!(service.sessions.open(&headers).unwrap() == session);

    cookies.reverse();
    assert!(service.sessions.open(&request(&cookies)).is_ok(), "in any order");

    let mut split = HeaderMap::new();
    for pair in &cookies {
        split.append(COOKIE, HeaderValue::from_str(&format!("{}={}", pair.0, pair.1)).unwrap());
    }
    assert!(service.sessions.open(&split).is_ok(), "in several fields, as HTTP/2 sends them");
}

#[test]
fn ses_08_part_sizes_hold_at_every_edge() {
    let name = CookieName::parse(&format!("__Host-{}", "n".repeat(121))).unwrap();
    for cookie_name in [config().cookie_name, name] {
        let service = service_with(Config { cookie_name, ..config() }, &binding());
        for bytes in (2000..9000).step_by(7) {
            let session = login(&claims(json!({"c": "x".repeat(bytes)})));
            let fields = service.sessions.seal(&session, &HeaderMap::new()).unwrap();
            assert!(fields.iter().all(|field| field.len() <= parts::MAX_COOKIE_BYTES), "{bytes}");
            assert!(service.sessions.open(&request(&kept(&fields))).unwrap() == session, "{bytes}");
        }
    }
}

#[test]
fn ses_08_missing_and_mixed_parts_are_refused() {
    let service = service();
    let mine = service.cookies(&large(20 * 1024));
    let count = mine.len();
    for missing in 0..count {
        let mut cookies = mine.clone();
        cookies.remove(missing);
        assert_eq!(service.sessions.open(&request(&cookies)), Err(Absent::Incomplete), "without {missing}");
    }
    // The same session sealed again, and another session: no part of either fits.
    for other in [service.cookies(&large(20 * 1024)), service.cookies(&large(20 * 1024))] {
        for mixed in 0..count {
            let mut cookies = mine.clone();
            cookies[mixed].1.clone_from(&other[mixed].1);
            assert_eq!(service.sessions.open(&request(&cookies)), Err(Absent::Incomplete), "mixed {mixed}");
        }
    }
    for (a, b) in [(0, 1), (1, 2), (count - 2, count - 1)] {
        let mut cookies = mine.clone();
        let (one, other) = (cookies[a].1.clone(), cookies[b].1.clone());
        (cookies[a].1, cookies[b].1) = (other, one);
        assert!(service.sessions.open(&request(&cookies)).is_err(), "swapped {a} and {b}");
    }
}

#[test]
fn ses_08_more_parts_than_belong_change_nothing() {
    let service = service();
    let session = large(8 * 1024);
    let mine = service.cookies(&session);
    let extra = service.cookies(&large(20 * 1024));
    let mut cookies = mine.clone();
    cookies.extend(extra[mine.len()..].iter().cloned());
    for number in ["12", "13", "16", "17", "99999999", "18446744073709551616", "0", "01", "-1", "+1", "x", ""]
    {
        cookies.push((format!("__Host-portcullis.{number}"), mine[1].1.clone()));
    }
    assert!(service.sessions.open(&request(&cookies)).unwrap() == session);
    cookies.remove(0);
    assert!(service.sessions.open(&request(&cookies)).is_err());
}

#[test]
fn ses_08_a_count_can_not_be_made_up() {
    let service = service();
    let sealer = Sealer::new(service.ring.clone(), &binding());
    let payload = alice().to_payload(START).unwrap();
    // Even sealed by ourselves: a count without its parts is no session.
    for (number, count) in [(0, 0), (0, 2), (0, 255), (1, 1), (255, 255)] {
        let part = [&[7; 16][..], &[number, count], &payload[..]].concat();
        let opened = service.open_value(&sealer.seal(Purpose::Session, &part).unwrap());
        assert_eq!(opened.is_ok(), number == 0 && count == 0, "{number} of {count}");
    }
    for short in 0..18 {
        let text = sealer.seal(Purpose::Session, &vec![0; short]).unwrap();
        assert_eq!(service.open_value(&text), Err(Absent::Unreadable));
    }
}

#[test]
fn ses_08_too_large_names_what_is_largest() {
    let service = service();
    let error = service.sessions.seal(&large(60 * 1024), &HeaderMap::new()).unwrap_err();
    let SessionError::TooLarge { part, bytes } = &error else { panic!("{error}") };
    assert_eq!(*part, LargestPart::Claim("groups".to_owned()));
    assert!(*bytes > 50 * 1024);
    assert!(error.to_string().contains("`groups`"));
    assert!(!error.to_string().contains("alice"));
    let mut session = large(20 * 1024);
    session.grant = Some(Grant {
        refresh_token: Secret::new("r".repeat(60 * 1024)),
        nonce: "n".to_owned(),
        received_at: START,
        expires_at: START,
        from_user_info: BTreeSet::new(),
    });
    let error = service.sessions.seal(&session, &HeaderMap::new()).unwrap_err();
    assert!(error.to_string().contains("the refresh token alone takes 61440 bytes"), "{error}");

    // Up to the cap, whatever is sealed can be sent back and opened.
    let mut sealed = 0;
    for kib in 20..60 {
        let session = large(kib * 1024);
        let Ok(fields) = service.sessions.seal(&session, &HeaderMap::new()) else { continue };
        sealed += 1;
        let headers = request(&kept(&fields));
        assert!(fields.len() <= parts::MAX_PARTS && headers[COOKIE].len() <= parts::MAX_SENT_BYTES);
        assert!(service.sessions.open(&headers).unwrap() == session);
    }
    assert!(sealed >= 8, "28 KiB and more of claims fit: {sealed}");
}

#[test]
fn a_session_that_shrank_deletes_its_old_parts() {
    let service = service();
    let large = service.cookies(&large(20 * 1024));
    let mut sent = large.clone();
    sent.push(("__Host-portcullis.4444".into(), "x".into()));
    sent.push(("__Host-portcullis.login".into(), "x".into()));
    sent.push(large[2].clone());
    let fields = service.sessions.seal(&alice(), &request(&sent)).unwrap();
    assert_eq!(kept(&fields).len(), 1);
    let mut expected: Vec<_> = large[1..].iter().map(|(name, _)| name.clone()).collect();
    expected.push("__Host-portcullis.4444".into());
    assert_eq!(deleted(&fields), expected);
    let many: Vec<_> = (0..1000).map(|number| (format!("__Host-portcullis.{}", number + 1), "x")).collect();
    assert_eq!(service.sessions.clear(&request(&many)).len(), 32, "bounded");
}
