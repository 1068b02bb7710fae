//! The steps of an authorised request, each alone: `cargo bench --bench micro`.
//!
//! The decision is measured among 10, 1,000 and 100,000 endpoints. That it costs the same in all of them and
//! stays below 300 ns is a promise; `benches/bench.py` reads these figures and holds it to that.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use divan::{Bencher, black_box};
use http::header::{ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, COOKIE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use portcullis::clock::{Clock, UnixTime};
use portcullis::path::{NormalPath, Options};
use portcullis::policy::{self, Caller, Decision, Endpoint, Policy};
use portcullis::proxy::{Client, ClientInfo, CookieHeader, HeaderRules, Identity, Mapping, Terms};
use portcullis::session::{self, Binding, CookieName, KeyRing, NewSession, Sealer, Session, Sessions};
use portcullis::tag::{Claims, TagSet};

fn main() {
    divan::main();
}

/// Rules as an API of many resources has them: a literal, a number, another literal; every tenth open to admins
/// only. What is asked for is in the middle of them.
fn endpoints(count: usize) -> Vec<Endpoint> {
    (0..count)
        .map(|number| Endpoint {
            spec: "api".into(),
            uri: format!("/api/v1/resource-{number}/?/items"),
            methods: vec!["GET".to_owned(), "POST".to_owned()],
            public: false,
            allowed_scopes: vec![vec![
                if number % 10 == 0 { "groups=admin" } else { "groups=staff" }.to_owned(),
            ]],
            denied_scopes: vec![vec!["groups=locked".to_owned()]],
            required_acr: Vec::new(),
            max_authentication_age: None,
        })
        .collect()
}

fn claims() -> Claims {
    let value = serde_json::json!({
        "sub": "248289761001",
        "email": "bob@acme.example",
        "email_verified": true,
        "groups": ["staff", "engineering", "vpn"],
    });
    serde_json::from_value(value).unwrap()
}

/// Lookup and decision: from a path that was read already to a permit, for one and the same path.
#[divan::bench(args = [10, 1_000, 100_000], sample_size = 1_000)]
fn decision(bencher: Bencher<'_, '_>, count: usize) {
    decide(bencher, count, 1);
}

/// The same for another of many paths each time, so that the rules are seldom in the processor's nearest cache.
#[divan::bench(args = [10, 1_000, 100_000], sample_size = 1_000)]
fn decision_elsewhere(bencher: Bencher<'_, '_>, count: usize) {
    decide(bencher, count, 1_000);
}

fn decide(bencher: Bencher<'_, '_>, count: usize, targets: usize) {
    let config = policy::Config { endpoints: endpoints(count), ..policy::Config::default() };
    let policy = Policy::compile(&config).unwrap();
    let held = policy.bind(&TagSet::from_claims(&claims()));
    let caller = Caller::Known { held: &held, acr: None, auth_time: None };
    // Spread over all rules by a stride without a common factor, and never one for admins (those end in 0).
    let number = |target: usize| (count / 2 + target * 7_919) % (count / 10) * 10 + 1 + target % 9;
    let paths: Vec<_> = (0..targets)
        .map(|target| format!("/api/v1/resource-{}/4711/items?page=2", number(target)))
        .map(|target| NormalPath::parse(&target, &Options::default()).unwrap())
        .collect();
    let mut paths = paths.iter().cycle();
    bencher.bench_local(|| {
        let rule = policy.find(&Method::GET, black_box(paths.next().unwrap())).unwrap();
        let decision = policy.decide(rule, caller, UnixTime(1_800_000_000));
        assert!(matches!(decision, Decision::Allow(_)));
    });
}

/// A target of four segments, with a query and an escape.
#[divan::bench(sample_size = 1_000)]
fn path_parse(bencher: Bencher<'_, '_>) {
    let options = Options::default();
    bencher.bench_local(|| {
        NormalPath::parse(black_box("/api/v1/resource-500/caf%C3%A9/items?page=2"), &options).unwrap()
    });
}

/// The session of a cookie, as on its first request at a worker.
#[divan::bench(sample_size = 100)]
fn cookie_open(bencher: Bencher<'_, '_>) {
    let (clock, _) = Clock::manual(UnixTime(1_800_000_000));
    let ring = KeyRing::parse("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=").unwrap();
    let binding = Binding {
        service: "app".to_owned(),
        host: "app.example.com".to_owned(),
        issuer: "https://idp.example.com".to_owned(),
        client_id: "client".to_owned(),
    };
    let sealer = Sealer::new(Arc::new(ArcSwap::from_pointee(ring)), &binding);
    let config = session::Config {
        cookie_name: CookieName::parse(CookieName::SESSION).unwrap(),
        idle_timeout: Duration::from_secs(3600),
        max_lifetime: Duration::from_secs(12 * 3600),
        bound_to_token: false,
        refresh_before: Duration::from_secs(60),
    };
    let sessions = Sessions::new(config, sealer, clock.clone());
    let request = signed_in(&sessions, clock.now());
    bencher.bench_local(|| sessions.open(black_box(&request)).unwrap());
}

/// The headers of a request with a new session's cookie.
fn signed_in(sessions: &Sessions, now: UnixTime) -> HeaderMap {
    let login = NewSession {
        issuer: "https://idp.example.com",
        subject: "248289761001",
        sid: None,
        claims: &claims(),
        keep: &BTreeSet::from(["email", "email_verified", "groups"].map(str::to_owned)),
        born: now.into(),
        token_expires_at: now.plus(Duration::from_secs(3600)),
        acr: None,
        auth_time: Some(now),
        grant: None,
        id_token: None,
        replaced: Vec::new(),
    };
    let session = Session::new(login, now).unwrap();
    let fields = sessions.seal(&session, &HeaderMap::new()).unwrap();
    let pairs: Vec<_> =
        fields.iter().map(|field| field.to_str().unwrap().split(';').next().unwrap().to_owned()).collect();
    HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(pairs.join("; ")).unwrap())])
}

/// A browser's headers turned into those that the application gets. A copy of the map is part of it.
#[divan::bench(sample_size = 1_000)]
fn header_rewrite(bencher: Bencher<'_, '_>) {
    let mappings = [("sub", "x-user-id"), ("email", "x-user-email"), ("groups", "x-user-groups")]
        .map(|(claim, header)| Mapping { claim: claim.to_owned(), header: HeaderName::from_static(header) });
    let (identity, _) = Identity::from_claims(&claims(), &mappings);
    let rules = HeaderRules::new(&mappings.map(|mapping| mapping.header));
    let request = HeaderMap::from_iter([
        (HOST, HeaderValue::from_static("app.example.com")),
        (USER_AGENT, HeaderValue::from_static("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101")),
        (ACCEPT, HeaderValue::from_static("text/html,application/xhtml+xml,*/*;q=0.8")),
        (ACCEPT_LANGUAGE, HeaderValue::from_static("en-US,en;q=0.5")),
        (ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate, br, zstd")),
        (COOKIE, HeaderValue::from_static("theme=dark; __Host-portcullis=sealed")),
    ]);
    let cookie = CookieHeader::Replace(Some(HeaderValue::from_static("theme=dark")));
    let client = Client::new(&ClientInfo {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        scheme: "https",
        host: "app.example.com",
        port: 443,
    });
    bencher.bench_local(|| {
        let mut headers = black_box(&request).clone();
        let terms = Terms {
            client: &client,
            request_id: "0193f1d2a4c87b6e9f00112233445566",
            identity: Some(&identity),
            cookie: cookie.clone(),
            private: true,
            observer: None,
            ends_at: None,
            lifeline: None,
            inform: None,
        };
        rules.apply(&mut headers, &terms);
        headers
    });
}
