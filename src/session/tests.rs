//! Sessions as a whole, by the rows of the catalogue: what may be done to cookies, and what comes of it.

mod bounds;
mod facts;
mod planted;
mod shown;
mod split;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use serde_json::json;

use super::*;
use crate::clock::{ManualClock, Millis};
use crate::tag::Claims;

const START: UnixTime = UnixTime(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// A service with its clock and its keys.
struct Service {
    sessions: Sessions,
    clock: ManualClock,
    ring: Arc<ArcSwap<KeyRing>>,
}

fn binding() -> Binding {
    Binding {
        service: "app".into(),
        host: "app.example.com".into(),
        issuer: "https://idp.example.com".into(),
        client_id: "client".into(),
    }
}

fn config() -> Config {
    Config {
        cookie_name: CookieName::parse(CookieName::SESSION).unwrap(),
        idle_timeout: HOUR,
        max_lifetime: 12 * HOUR,
        bound_to_token: false,
        refresh_before: MINUTE,
    }
}

fn ring(keys: &[u8]) -> KeyRing {
    let lines: Vec<_> = keys.iter().map(|byte| STANDARD.encode([*byte; 32])).collect();
    KeyRing::parse(&lines.join("\n")).unwrap()
}

fn service_with(config: Config, binding: &Binding) -> Service {
    let (clock, manual) = Clock::manual(START);
    let ring = Arc::new(ArcSwap::from_pointee(ring(&[1])));
    let sealer = Sealer::new(ring.clone(), binding);
    Service { sessions: Sessions::new(config, sealer, clock), clock: manual, ring }
}

fn service() -> Service {
    service_with(config(), &binding())
}

fn claims(value: serde_json::Value) -> Claims {
    value.as_object().unwrap().clone()
}

fn login(claims: &Claims) -> Session {
    let keep: BTreeSet<String> = claims.keys().cloned().collect();
    let login = NewSession {
        issuer: "https://idp.example.com",
        subject: "alice",
        sid: Some("idp-session"),
        claims,
        keep: &keep,
        born: Millis(START.0 * 1000 + 7),
        token_expires_at: START.plus(HOUR),
        acr: Some("urn:mfa"),
        auth_time: Some(START.minus(MINUTE)),
        grant: None,
        id_token: None,
        replaced: Vec::new(),
    };
    Session::new(login, START).unwrap()
}

fn alice() -> Session {
    login(&claims(json!({"email": "alice@acme.example", "groups": ["staff", "admin"]})))
}

/// `bytes` of claims that don't compress into anything, over two claims.
fn large(bytes: usize) -> Session {
    let groups: Vec<_> = (0..bytes / 40).map(|number| format!("{number:036}x")).collect();
    login(&claims(json!({"email": "alice@acme.example", "groups": groups})))
}

/// `name=value` of each Set-Cookie field, as a browser would keep them; deletions are left out.
fn kept(fields: &[HeaderValue]) -> Vec<(String, String)> {
    fields
        .iter()
        .map(|field| ::cookie::Cookie::parse(field.to_str().unwrap()).unwrap())
        .filter(|cookie| cookie.max_age() != Some(::cookie::time::Duration::ZERO))
        .map(|cookie| (cookie.name().to_owned(), cookie.value().to_owned()))
        .collect()
}

fn deleted(fields: &[HeaderValue]) -> Vec<String> {
    fields
        .iter()
        .map(|field| ::cookie::Cookie::parse(field.to_str().unwrap()).unwrap())
        .filter(|cookie| cookie.max_age() == Some(::cookie::time::Duration::ZERO))
        .map(|cookie| cookie.name().to_owned())
        .collect()
}

fn request<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> HeaderMap {
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| format!("{}={}", name.as_ref(), value.as_ref())).collect();
    cookie_field(pairs.join("; ").as_bytes())
}

fn cookie_field(bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(COOKIE, HeaderValue::from_bytes(bytes).unwrap());
    headers
}

impl Service {
    fn cookies(&self, session: &Session) -> Vec<(String, String)> {
        kept(&self.sessions.seal(session, &HeaderMap::new()).unwrap())
    }

    /// The value of a session that fits one cookie.
    fn value(&self, session: &Session) -> String {
        let cookies = self.cookies(session);
        assert_eq!(cookies.len(), 1);
        cookies[0].1.clone()
    }

    fn open_value(&self, value: &str) -> Result<Session, Absent> {
        self.sessions.open(&request(&[(CookieName::SESSION, value)]))
    }
}

#[test]
fn a_session_comes_back_as_it_was() {
    let service = service();
    for session in [alice(), large(20 * 1024), login(&Claims::new())] {
        let opened = service.sessions.open(&request(&service.cookies(&session))).unwrap();
        assert!(opened == session, "{opened:?}");
    }
}

#[test]
fn ses_01_attributes_are_exact() {
    let service = service();
    let fields = service.sessions.seal(&large(20 * 1024), &HeaderMap::new()).unwrap();
    assert!(fields.len() > 1);
    for (number, field) in fields.iter().enumerate() {
        assert!(field.is_sensitive());
        let text = field.to_str().unwrap();
        let (name, rest) = text.split_once('=').unwrap();
        let expected =
            if number == 0 { "__Host-portcullis".into() } else { format!("__Host-portcullis.{number}") };
        assert_eq!(name, expected);
        let (_, attributes) = rest.split_once(';').unwrap();
        let attributes: BTreeSet<_> = attributes.split(';').map(str::trim).collect();
        assert_eq!(attributes, BTreeSet::from(["HttpOnly", "SameSite=Lax", "Secure", "Path=/"]));
    }
}

#[test]
fn ses_01_deletion_has_the_same_attributes() {
    let service = service();
    let request = request(&[("__Host-portcullis", "x"), ("app", "1"), ("__Host-portcullis.3", "y")]);
    let fields = service.sessions.clear(&request);
    assert_eq!(
        fields,
        [
            "__Host-portcullis=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0",
            "__Host-portcullis.3=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0"
        ]
    );
    assert!(service.sessions.clear(&HeaderMap::new()).is_empty());
}

#[test]
fn ses_02_nothing_readable_in_the_cookie() {
    let value = service().value(&alice());
    let raw = URL_SAFE_NO_PAD.decode(&value).unwrap();
    for hidden in ["alice", "acme", "staff", "admin", "idp", "urn:mfa", "groups"] {
        assert!(!value.contains(hidden));
        assert!(!raw.windows(hidden.len()).any(|window| window == hidden.as_bytes()), "{hidden}");
    }
    // Two seals of the same session have nothing in common beyond version and key id.
    let service = service();
    let (one, other) = (service.value(&alice()), service.value(&alice()));
    assert_ne!(one[8..24], other[8..24]);
}

#[test]
fn ses_03_every_flipped_bit_is_refused() {
    let service = service();
    let value = service.value(&alice());
    let raw = URL_SAFE_NO_PAD.decode(&value).unwrap();
    assert!(service.open_value(&value).is_ok());
    for bit in 0..raw.len() * 8 {
        let mut raw = raw.clone();
        raw[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(service.open_value(&URL_SAFE_NO_PAD.encode(raw)), Err(Absent::Unreadable), "bit {bit}");
    }
    for place in 0..value.len() {
        for bit in 0..7 {
            let mut text = value.clone().into_bytes();
            text[place] ^= 1 << bit;
            let Ok(field) = HeaderValue::from_bytes(&[b"__Host-portcullis=", &text[..]].concat()) else {
                continue;
            };
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, field);
            assert!(service.sessions.open(&headers).is_err(), "bit {bit} of character {place}");
        }
    }
}

#[test]
fn ses_03_truncated_and_appended_is_refused() {
    let service = service();
    let value = service.value(&alice());
    for length in 0..value.len() {
        assert!(service.open_value(&value[..length]).is_err(), "length {length}");
    }
    for more in ["A", "AA", "AAAA", "=", "==", ".", "-", "\"", " A", "é", value.as_str()] {
        assert!(service.open_value(&format!("{value}{more}")).is_err(), "{more}");
        assert!(service.open_value(&format!("{more}{value}")).is_err(), "{more}");
    }
}

#[test]
fn ses_04_another_service_host_issuer_or_client_is_refused() {
    let cookies = service().cookies(&alice());
    let others: [fn(&mut Binding); 6] = [
        |binding| binding.service = "other".into(),
        |binding| binding.host = "other.example.com".into(),
        |binding| binding.issuer = "https://idp.example.com/".into(),
        |binding| binding.client_id = "other".into(),
        // The same bytes, cut elsewhere.
        |binding| (binding.service, binding.host) = ("ap".into(), "papp.example.com".into()),
        |binding| {
            (binding.issuer, binding.client_id) = ("https://idp.example.comclient".into(), String::new())
        },
    ];
    for change in others {
        let mut binding = binding();
        change(&mut binding);
        let other = service_with(config(), &binding);
        assert_eq!(other.sessions.open(&request(&cookies)), Err(Absent::Unreadable), "{binding:?}");
    }
    assert!(service().sessions.open(&request(&cookies)).is_ok(), "the same binding opens it");
}

#[test]
fn ses_04_a_seal_of_another_purpose_is_no_session() {
    let service = service();
    let sealer = Sealer::new(service.ring.clone(), &binding());
    let payload = alice().to_payload(START).unwrap();
    let [text] = &parts::split(&sealer, &config().cookie_name, &payload).unwrap().unwrap()[..] else {
        panic!()
    };
    let part = sealer.open(Purpose::Session, text).unwrap();
    for (purpose, opens) in
        [(Purpose::Session, true), (Purpose::Login, false), (Purpose::State, false), (Purpose::Logout, false)]
    {
        let text = sealer.seal(purpose, &part).unwrap();
        assert_eq!(service.open_value(&text).is_ok(), opens, "{purpose:?}");
    }
}

#[test]
fn ses_07_keys_rotate_without_logging_anybody_out() {
    let service = service();
    let old = service.value(&alice());
    service.ring.store(ring(&[2, 1]).into());
    let session = service.open_value(&old).unwrap();
    let new = service.value(&session);
    assert!(service.open_value(&new).is_ok());

    service.ring.store(ring(&[2]).into());
    assert_eq!(service.open_value(&old), Err(Absent::Unreadable));
    assert_eq!(service.open_value(&new).unwrap().id, session.id);
    assert!(service.open_value(&service.value(&alice())).is_ok(), "a new login works");

    // A replica that has not heard of the new key yet refuses it like any other.
    service.ring.store(ring(&[1]).into());
    assert_eq!(service.open_value(&new), Err(Absent::Unreadable));
}

#[test]
fn ses_10_every_login_has_a_new_id() {
    let ids: BTreeSet<_> = (0..100).map(|_| alice().id).collect();
    assert_eq!(ids.len(), 100);

    // A login in a browser that presents a planted session: the planted parts go.
    let service = service();
    let planted = service.cookies(&large(8 * 1024));
    let session = alice();
    let fields = service.sessions.seal(&session, &request(&planted)).unwrap();
    assert_eq!(deleted(&fields).len(), planted.len() - 1);
    assert_eq!(service.sessions.open(&request(&kept(&fields))).unwrap().id, session.id);
}

#[test]
fn the_cookie_key_tells_any_two_requests_apart() {
    let sessions = service().sessions;
    let name = CookieName::SESSION;
    let fields: [&[u8]; 9] = [
        b"__Host-portcullis=a",
        b"__Host-portcullis=b",
        b"__Host-portcullis=a; __Host-portcullis=b",
        b"__Host-portcullis=b; __Host-portcullis=a",
        b"__Host-portcullis=a; __Host-portcullis.1=b",
        b"__Host-portcullis=ab",
        b"__Host-portcullis.1=a",
        b"__Host-portcullis=a__Host-portcullis.1=b",
        b"__Host-portcullis=a; __Host-portcullis.10=b",
    ];
    let keys: BTreeSet<_> =
        fields.iter().map(|f| sessions.cookie_key(&cookie_field(f)).unwrap().into_owned()).collect();
    assert_eq!(keys.len(), fields.len());

    let headers = cookie_field(b"x=1; __Host-portcullis=a; y=2");
    let key = sessions.cookie_key(&headers).unwrap();
    assert!(
        matches!(&key, Cow::Borrowed(key) if *key == format!("{name}=a").as_bytes()),
        "no copy of one cookie"
    );
    assert!(sessions.cookie_key(&cookie_field(b"__Host-portcullis-other=a; x=1")).is_none());
}

#[test]
fn only_named_claims_are_kept_and_new_names_are_noticed() {
    let all = claims(json!({"email": "a@b", "picture": "data:...", "https://acme.com/roles": ["x"]}));
    let keep: BTreeSet<String> = ["email", "https://acme.com/roles", "dept"].map(String::from).into();
    let login = NewSession {
        issuer: "i",
        subject: "s",
        sid: None,
        claims: &all,
        keep: &keep,
        born: START.into(),
        token_expires_at: START,
        acr: None,
        auth_time: None,
        grant: None,
        id_token: None,
        replaced: Vec::new(),
    };
    let session = Session::new(login, START).unwrap();
    assert_eq!(session.claims.keys().collect::<Vec<_>>(), ["email", "https://acme.com/roles"]);
    let service = service();
    let session = service.open_value(&service.value(&session)).unwrap();
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert!(session.keeps(&names(&["email", "dept"])), "asked for, though the provider sent none");
    assert!(session.keeps(&names(&[])));
    assert!(!session.keeps(&names(&["email", "picture"])));
}

#[test]
fn debug_and_errors_show_nobody_s_data() {
    let service = service();
    let grant = Grant {
        refresh_token: crate::secret::Secret::new("refresh-token".to_owned()),
        nonce: "the-nonce".to_owned(),
        received_at: START,
        expires_at: START,
        from_user_info: BTreeSet::from(["claim-of-user-info".to_owned()]),
    };
    let session = Session { grant: Some(grant.clone()), ..alice() };
    let value = service.value(&session);
    let shown = format!("{session:?} {grant:?} {:?} {:?}", service.sessions, service.ring.load());
    let of_the_grant = ["refresh-token", "the-nonce", "claim-of-user-info"];
    for hidden in ["alice", "acme", "staff", "idp-session", &value, &STANDARD.encode([1; 32])]
        .into_iter()
        .chain(of_the_grant)
    {
        assert!(!shown.contains(hidden), "{hidden}");
    }
}

/// A session sealed by the first version. It must open for as long as its version is accepted: an upgrade
/// logs nobody out.
#[test]
fn the_format_is_stable() {
    let service = service();
    let session = service.open_value(GOLDEN).unwrap();
    assert_eq!(session.subject, "alice");
    assert_eq!(session.claims, alice().claims);
    assert_eq!((session.logged_in_at, session.acr.as_deref()), (START, Some("urn:mfa")));
    assert_eq!(session.born, START.into(), "as early as it may have been");
}

const GOLDEN: &str = "AeA9zqmoif0TbhsXGMpqdR8doymtRsBIGPdWknmYl5k_mBFVd7eco_VxN-9jPAMJ24fP4qnmNVi1tnKzQldV1AGf9d\
    BQzcJMu46BJIeDUXYeb2Xm4vNsNGAiu1akbxXq2hSDJC4Bid86cyiijpbe5G13gAAFqy9jxt9sqgHXrLNchudPfza7\
    aIlaq0DkHN2JdtBWQRf1AsTbv6HpjhdS7FJNWtNkgF0ORfFJ_RWKYtYlYf4KJBMbRQIomzalDEomVqdpbT5sexxDY7\
    n_BMb-fBBhe5FPVzPWk3atf4y0gXH4O0TzPLc_-JPhOA--PVlyQEBRoyoseBs1NtCj39eBKvjwJGv7enJw4rsJ-GNN\
    eftDKN0vWovxXVpgVE0sFl8c53auC-EGnIHYJjR5Nm2u4A7LolXGKspJb_JUSI9mlyXMxVilO-HAtnPy";

#[test]
fn a_payload_of_another_version_is_no_session() {
    let payload = alice().to_payload(START).unwrap();
    let text = str::from_utf8(&payload).unwrap();
    assert!(Session::from_payload(text.as_bytes()).is_some());
    assert!(Session::from_payload(text.replacen("\"v\":2", "\"v\":3", 1).as_bytes()).is_none());
    assert!(
        Session::from_payload(text.replacen("\"v\":2", "\"v\":1", 1).as_bytes()).is_some(),
        "before grants"
    );
    assert!(Session::from_payload(b"{}").is_none());
    assert!(Session::from_payload(b"").is_none());
}

#[test]
fn a_kept_id_token_comes_back_whatever_it_looks_like() {
    let jwt = format!("{}.{}.{}", "eyJhbGciOiJFUzI1NiJ9", "a".repeat(800), "_-".repeat(42));
    for (token, is_smaller) in [(jwt.as_str(), true), ("a.b", false), ("\0.\0.\0", false), ("", false)] {
        let session = Session { id_token: Some(crate::secret::Secret::new(token.to_owned())), ..alice() };
        let payload = session.to_payload(START).unwrap();
        let plain = alice().to_payload(START).unwrap();
        assert_eq!(payload.len() < plain.len() + token.len() * 4 / 5, is_smaller, "{token:.20}");
        let opened = Session::from_payload(&payload).unwrap();
        assert_eq!(opened.id_token.as_ref().map(|token| token.expose().as_str()), Some(token));
        assert!(opened == session);
        if is_smaller {
            assert!(Session::from_payload(&payload[..payload.len() - 1]).is_none(), "half a token is none");
        }
    }
}
