//! What the browser sends as cookies, under arbitrary bytes. See [`crate::fuzzing`].
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "see crate::fuzzing"
)]

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use serde_json::json;

use super::*;
use crate::clock::Millis;

const NOW: UnixTime = UnixTime(1_800_000_000);

/// A service, and what it sealed.
struct Sealed {
    sealer: Sealer,
    /// The same keys, for another service.
    other: Sealer,
    /// Has never sealed anything. The fuzzer sees what is compared, and so learns the seals that are made here.
    unused: Sealer,
    sessions: Sessions,
    small: Session,
    large: Session,
    /// What bytes 1 to 6 stand for: the small session; the parts of the large one, sealed twice.
    texts: Vec<String>,
}

static SEALED: LazyLock<Sealed> = LazyLock::new(|| {
    let ring = Arc::new(ArcSwap::from_pointee(KeyRing::random().unwrap()));
    let binding = |service: &str| Binding {
        service: service.into(),
        host: "app.example".into(),
        issuer: "https://idp.example".into(),
        client_id: "me".into(),
    };
    let sealer = Sealer::new(Arc::clone(&ring), &binding("app"));
    let unused = Sealer::new(Arc::new(ArcSwap::from_pointee(KeyRing::random().unwrap())), &binding("app"));
    let config = Config {
        cookie_name: CookieName::parse(CookieName::SESSION).unwrap(),
        idle_timeout: Duration::from_secs(3600),
        max_lifetime: Duration::from_secs(7200),
        bound_to_token: false,
        refresh_before: Duration::from_secs(60),
    };
    let (clock, _) = Clock::manual(NOW);
    let sessions = Sessions::new(config, sealer.clone(), clock);
    let (small, large) = (session("alice", 10), session("bob", 5000));
    let values = |session| sessions.cookie_values(session).unwrap();
    let texts = [values(&small), values(&large), values(&large)].concat();
    assert_eq!(texts.len(), PLANTED.len());
    Sealed { sealer, other: Sealer::new(ring, &binding("other")), unused, sessions, small, large, texts }
});

/// Where the parts of each sealing are in [`Sealed::texts`], and so which bytes they are, counted from 1.
const PLANTED: [(usize, usize); 5] = [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1)];

fn session(subject: &str, bytes: usize) -> Session {
    let claims = json!({"groups": "g".repeat(bytes)}).as_object().cloned().unwrap();
    let keep = BTreeSet::from(["groups".to_owned()]);
    let login = NewSession {
        issuer: "https://idp.example",
        subject,
        sid: None,
        claims: &claims,
        keep: &keep,
        born: Millis(NOW.0 * 1000),
        token_expires_at: NOW.plus(Duration::from_secs(300)),
        acr: None,
        auth_time: None,
        grant: None,
        id_token: None,
        replaced: Vec::new(),
    };
    Session::new(login, NOW).unwrap()
}

/// Each line is a Cookie field. The bytes 1 to 5, which no field can hold, stand for cookie values of ours.
pub fn cookies(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut field = Vec::with_capacity(line.len());
        for byte in line {
            match usize::from(*byte).checked_sub(1).and_then(|at| SEALED.texts.get(at)) {
                Some(text) => field.extend(text.bytes()),
                None => field.push(*byte),
            }
        }
        let Ok(field) = HeaderValue::from_bytes(&field) else { return };
        headers.append(COOKIE, field);
    }
    check_open(bytes, &headers);
    check_strip(&headers);
    let deletions = SEALED.sessions.clear(&headers);
    assert!(deletions.len() <= 32 && deletions.iter().all(|field| !field.is_empty()));
    for field in &deletions {
        assert!(field.as_bytes().starts_with(b"__Host-portcullis"), "{field:?}");
    }
}

/// Only what was sealed here opens, and only where all of it is there.
fn check_open(bytes: &[u8], headers: &HeaderMap) {
    let has = |at: usize| bytes.iter().any(|byte| usize::from(*byte) == at + 1);
    let whole = |sealing: usize| (0..).zip(PLANTED).all(|(at, (of, _))| of != sealing || has(at));
    match SEALED.sessions.open(headers) {
        Ok(session) if session.id == SEALED.small.id => assert!(whole(0)),
        Ok(session) if session.id == SEALED.large.id => assert!(whole(1) || whole(2)),
        Ok(_) => panic!("a session that was never sealed"),
        Err(Absent::Ambiguous) => assert!(whole(0) && (whole(1) || whole(2))),
        Err(reason) => assert!(matches!(reason, Absent::NoCookie | Absent::Incomplete | Absent::Unreadable)),
    }
    let name = &SEALED.sessions.config.cookie_name;
    assert!(parts::join(&SEALED.other, name, headers).is_err(), "another service opens it");
    let opened = parts::join(&SEALED.sealer, name, headers).map_or(0, |payloads| payloads.len());
    assert!(opened <= parts::MAX_TRIES);
}

/// None of ours reaches the application, and of the others every byte, in order.
fn check_strip(headers: &HeaderMap) {
    let own = OwnCookies::new(vec![CookieName::parse("__Host-custom").unwrap()]);
    let sent: Vec<&[u8]> =
        headers.get_all(COOKIE).iter().flat_map(|field| segments(field.as_bytes())).collect();
    let others: Vec<&[u8]> = sent.iter().copied().filter(|segment| !is_ours(segment)).collect();
    match own.strip(headers) {
        Stripped::Unchanged => assert_eq!(others.len(), sent.len(), "one of ours went through"),
        Stripped::Replaced(left) => {
            assert_ne!(others.len(), sent.len(), "replaced without need");
            let left = left.as_ref().map_or(&b""[..], |left| left.as_bytes());
            let kept: Vec<&[u8]> = segments(left).filter(|kept| !kept.is_empty()).collect();
            let others: Vec<&[u8]> = others.into_iter().filter(|other| !other.is_empty()).collect();
            assert_eq!(kept, others, "{:?}", left.escape_ascii().to_string());
        }
    }
}

fn segments(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    field.split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

/// Whether this may be taken for a cookie of ours by whoever reads it.
fn is_ours(segment: &[u8]) -> bool {
    let text = String::from_utf8_lossy(segment).to_ascii_lowercase();
    let pair = text.strip_prefix('=').unwrap_or(&text);
    let name = pair.split('=').next().unwrap_or_default().trim_matches([' ', '\t', '\x0c']);
    let digits = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix("__host-portcullis").is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
        || name
            .strip_prefix("__host-custom")
            .is_some_and(|rest| rest.is_empty() || rest.strip_prefix('.').is_some_and(digits))
}

/// A seal opens as it was, for what it was, and in no other way. The first byte says what the others are: a text to
/// open (even), or changes to a good one (odd).
pub fn sealed(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    const PURPOSES: [Purpose; 4] = [Purpose::Session, Purpose::Login, Purpose::State, Purpose::Logout];
    if how % 2 == 0 {
        let Ok(text) = std::str::from_utf8(rest) else { return };
        for purpose in PURPOSES {
            assert!(SEALED.unused.open(purpose, text).is_none(), "opened what was never sealed");
        }
        assert!(TransactionId::parse(text).is_none_or(|id| id.as_str() == text));
        return;
    }
    let purpose = PURPOSES[usize::from(how >> 1) % PURPOSES.len()];
    let plain = &rest[..rest.len() / 2];
    let Ok(good) = SEALED.sealer.seal(purpose, plain) else {
        assert!(plain.len() > MAX_PLAIN_BYTES);
        return;
    };
    for other in PURPOSES {
        let opened = SEALED.sealer.open(other, &good);
        assert_eq!(opened.as_ref().map(|opened| opened.as_slice()), (other == purpose).then_some(plain));
        assert!(SEALED.other.open(other, &good).is_none(), "another service opens it");
    }
    let mut changed = good.clone().into_bytes();
    for change in rest[rest.len() / 2..].chunks_exact(3) {
        let [kind, high, byte] = *change else { continue };
        let at = usize::from(high) * changed.len().max(1) / 256;
        match kind % 4 {
            0 if at < changed.len() => changed[at] = byte,
            1 => changed.insert(at.min(changed.len()), byte),
            2 if at < changed.len() => drop(changed.remove(at)),
            3 => changed.truncate(at),
            _ => {}
        }
    }
    if let Ok(changed) = String::from_utf8(changed)
        && changed != good
    {
        assert!(SEALED.sealer.open(purpose, &changed).is_none(), "a changed seal opens");
    }
}
