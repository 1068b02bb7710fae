mod answers;
mod mistakes;
mod words;

use http::Method;
use proptest::prelude::*;
use serde_json::json;

use super::matcher::Segment;
use super::*;
use crate::clock::UnixTime;
use crate::path::{EncodedSlashes, NormalPath, Options};
use crate::tag::TagSet;

fn endpoint(uri: &str, methods: &[&str]) -> Endpoint {
    Endpoint {
        spec: "spec".into(),
        uri: uri.to_owned(),
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        public: true,
        allowed_scopes: Vec::new(),
        denied_scopes: Vec::new(),
        required_acr: Vec::new(),
        max_authentication_age: None,
    }
}

type Clauses = &'static [&'static [&'static str]];

fn scopes(clauses: Clauses) -> Vec<Vec<String>> {
    clauses.iter().map(|tags| tags.iter().map(|tag| (*tag).to_owned()).collect()).collect()
}

fn compile(endpoints: Vec<Endpoint>) -> Policy {
    Policy::compile(&Config { endpoints, ..Config::default() }).unwrap()
}

fn gets(uris: &[&str]) -> Policy {
    compile(uris.iter().map(|uri| endpoint(uri, &["GET"])).collect())
}

fn target(path: &str) -> NormalPath {
    NormalPath::parse(path, &Options::default()).unwrap()
}

fn found(policy: &Policy, method: &str, path: &str) -> Option<String> {
    let method = method.parse().unwrap();
    policy.find(&method, &target(path)).unwrap().rule.map(|rule| rule.uri().to_string())
}

/// Section 5 of the contract: what each pattern matches.
#[test]
fn one_pattern() {
    for (pattern, matching, other) in [
        ("/", &["/"][..], &["/a"][..]),
        ("/a", &["/a", "/a/"], &["/", "/b", "/a/b", "/A", "/aa"]),
        ("/a/", &["/a", "/a/"], &["/a/b"]),
        ("/*", &["/", "/a", "/a/", "/a/b/c"], &[]),
        ("/?", &["/", "/a", "/a/"], &["/a/b"]),
        ("/a/*", &["/a", "/a/", "/a/b", "/a/b/c"], &["/", "/b", "/ab"]),
        ("/a/?", &["/a", "/a/b"], &["/a/b/c", "/b"]),
        ("/a/*/c", &["/a/b/c", "/a/b/b/c", "/a/c/c"], &["/a/c", "/a/b", "/c"]),
        ("/a/?/c", &["/a/b/c"], &["/a/c", "/a/b/b/c"]),
        ("/*/c", &["/b/c", "/a/b/c", "/c/c"], &["/c", "/c/b"]),
        ("/a/*/?", &["/a/b", "/a/b/c", "/a/b/c/d"], &["/a"]),
        ("/?/*", &["/a", "/a/b"], &["/"]),
        ("/%2A", &["/*", "/%2a"], &["/a", "/"]),
        ("/caf%C3%A9", &["/caf%c3%a9", "/caf%C3%A9"], &["/cafe"]),
        ("/a%20b", &["/a%20b"], &["/a+b", "/a%2520b"]),
        ("/a!b", &["/a!b", "/a%21b"], &["/ab"]),
        ("/%61dmin", &["/admin", "/%61dmin", "/a%64min"], &["/Admin"]),
    ] {
        let policy = gets(&[pattern]);
        for path in matching {
            assert_eq!(
                found(&policy, "GET", path).as_deref(),
                Some(pattern),
                "{pattern} should match {path}"
            );
        }
        for path in other {
            assert_eq!(found(&policy, "GET", path), None, "{pattern} should not match {path}");
        }
    }
}

/// AZ-16: the most specific pattern wins, whatever the order of declarations.
#[test]
fn the_most_specific_wins() {
    for (patterns, path, expected) in [
        (&["/*", "/a"][..], "/a", "/a"),
        (&["/*", "/?"], "/a", "/?"),
        (&["/?", "/a"], "/a", "/a"),
        (&["/a", "/a/?", "/a/*"], "/a", "/a"),
        (&["/a/?", "/a/*"], "/a", "/a/?"),
        (&["/a/?", "/a/*"], "/a/b", "/a/?"),
        (&["/a/?", "/a/*"], "/a/b/c", "/a/*"),
        // At each segment, from the left: a literal early beats literals later.
        (&["/a/*", "/?/b/c"], "/a/b/c", "/a/*"),
        (&["/a/?/c", "/a/b/*"], "/a/b/c", "/a/b/*"),
        // Backtracking: the literal leads nowhere.
        (&["/a/b/c", "/?/b/d"], "/a/b/d", "/?/b/d"),
        (&["/a/b", "/*"], "/a/c", "/*"),
        (&["/a/*/z", "/a/b/c"], "/a/b/z", "/a/*/z"),
        (&["/a/*/c/b", "/a/*/b"], "/a/x/c/b", "/a/*/c/b"),
        (&["/", "/*"], "/", "/"),
        (&["/?", "/*"], "/", "/?"),
    ] {
        for rotation in 0..patterns.len() {
            let mut order = patterns.to_vec();
            order.rotate_left(rotation);
            assert_eq!(found(&gets(&order), "GET", path).as_deref(), Some(expected), "{order:?} {path}");
        }
    }
}

#[test]
fn methods_choose_the_candidates() {
    let policy = compile(vec![
        endpoint("/a", &["GET"]),
        endpoint("/*", &["POST"]),
        endpoint("/a/?", &["*"]),
        endpoint("/h", &["GET"]),
        endpoint("/h/*", &["*"]),
        endpoint("/h/own", &["GET"]),
        endpoint("/h/own/", &["HEAD"]),
    ]);
    for (method, path, expected) in [
        ("GET", "/a", Some("/a")),
        // The more specific `/a` has no POST rule, so it is no candidate.
        ("POST", "/a", Some("/a/?")),
        ("POST", "/x", Some("/*")),
        ("GET", "/x", None),
        // AZ-02
        ("get", "/a", None),
        ("get", "/x", None),
        ("OPTIONS", "/x", None),
        ("PROPFIND", "/a/b", Some("/a/?")),
        ("HEAD", "/a", Some("/a")),
        ("HEAD", "/h", Some("/h")),
        ("HEAD", "/h/own", Some("/h/own/")),
        ("GET", "/h/own", Some("/h/own")),
        ("DELETE", "/h/own", Some("/h/*")),
    ] {
        assert_eq!(found(&policy, method, path).as_deref(), expected, "{method} {path}");
    }
    let policy = compile(vec![endpoint("/a", &["*"]), endpoint("/a", &["GET"])]);
    let rule = policy.find(&Method::GET, &target("/a")).unwrap().rule.unwrap();
    assert_eq!(rule.method().as_ref(), "GET", "at equal URIs a named method beats *");
}

/// AZ-08: where an application might cut parameters off, both readings must fall under one rule.
#[test]
fn parameters_hide_nothing() {
    let policy = gets(&["/admin", "/*", "/app/*", "/v;1", "/v/*"]);
    for (path, expected) in [
        ("/admin;x=1", Err(Ambiguous::Parameters)),
        ("/admin%3bx", Err(Ambiguous::Parameters)),
        ("/admin%3Bx", Err(Ambiguous::Parameters)),
        ("/app/page;jsessionid=1", Ok(Some("/app/*"))),
        ("/other;x", Ok(Some("/*"))),
        ("/app;x/y", Err(Ambiguous::Parameters)),
        ("/v;1", Err(Ambiguous::Parameters)),
    ] {
        let ruling = policy.find(&Method::GET, &target(path));
        assert_eq!(ruling.map(|ruling| ruling.rule.map(|rule| rule.uri().as_ref())), expected, "{path}");
    }
}

#[test]
fn kept_slashes_stay_inside_a_segment() {
    let path = Options { encoded_slashes: EncodedSlashes::Keep, ..Options::default() };
    let endpoints = ["/a/b", "/a%2Fc", "/x/?"].iter().map(|uri| endpoint(uri, &["GET"])).collect();
    let policy = Policy::compile(&Config { endpoints, path, ..Config::default() }).unwrap();
    for (target, expected) in
        [("/a%2Fb", None), ("/a%2fc", Some("/a%2Fc")), ("/a/c", None), ("/x/a%2Fb", Some("/x/?"))]
    {
        let target = NormalPath::parse(target, &path).unwrap();
        let rule = policy.find(&Method::GET, &target).unwrap().rule;
        assert_eq!(rule.map(|rule| rule.uri().as_ref()), expected, "{target:?}");
    }
}

/// An application may take a kept slash for a separator: what a more specific rule says about that path holds.
#[test]
fn kept_slashes_get_around_no_rule() {
    let path = Options { encoded_slashes: EncodedSlashes::Keep, ..Options::default() };
    let uris = [
        "/public/*",
        "/public/secret/*",
        "/public/*/keys",
        "/*",
        "/api/?/issues",
        "/api/a%2Fb/*",
        "/n/?",
        "/n/?/x",
        "/l/a%2Fb",
        "/l/a/b",
        "/s/?",
        "/s/*/b",
    ];
    let endpoints = uris.iter().map(|uri| endpoint(uri, &["GET"])).collect();
    let policy = Policy::compile(&Config { endpoints, path, ..Config::default() }).unwrap();
    for (target, expected) in [
        ("/public/a%2Fb", Ok(Some("/public/*"))),
        ("/public/secret%2Fx", Err(Ambiguous::Slashes)),
        ("/public/secret%2fx", Err(Ambiguous::Slashes)),
        ("/public/secret%5Cx/y", Err(Ambiguous::Slashes)),
        ("/public/secret%5cx", Err(Ambiguous::Slashes)),
        ("/public/secret/a%2Fx", Ok(Some("/public/secret/*"))),
        ("/public/a%2Fkeys", Err(Ambiguous::Slashes)),
        ("/public/a/b%2Fkeys", Err(Ambiguous::Slashes)),
        ("/public%2Fsecret", Err(Ambiguous::Slashes)),
        ("/secret%2Fpublic", Ok(Some("/*"))),
        ("/n/a%2Fx", Err(Ambiguous::Slashes)),
        // Less specific about it: the operator meant the wildcard.
        ("/api/group%2Fproject/issues", Ok(Some("/api/?/issues"))),
        ("/api/a%2Fb/issues", Ok(Some("/api/a%2Fb/*"))),
        ("/s/a%2Fb", Ok(Some("/s/?"))),
        // Written for the slash as it was sent.
        ("/l/a%2Fb", Ok(Some("/l/a%2Fb"))),
        // Both at once.
        ("/public/x;y%2F..z", Ok(Some("/public/*"))),
        ("/public/a/secret;x%2Fy", Ok(Some("/public/*"))),
        ("/public/secret;x%2Fy", Err(Ambiguous::Parameters)),
    ] {
        let read = NormalPath::parse(target, &path).unwrap();
        let ruling = policy.find(&Method::GET, &read);
        assert_eq!(ruling.map(|ruling| ruling.rule.map(|rule| rule.uri().as_ref())), expected, "{target}");
    }
    let endpoints = ["/a/*", "/a/b/c/*"].iter().map(|uri| endpoint(uri, &["GET"])).collect();
    let policy = Policy::compile(&Config { endpoints, path, ..Config::default() }).unwrap();
    let read = NormalPath::parse("/a/b%2Fc;v", &path).unwrap();
    assert_eq!(policy.find(&Method::GET, &read).err(), Some(Ambiguous::Slashes));
}

/// Where the decoded path falls under a rule that says less, both have to allow the request: nobody gets past that rule
/// by a wildcard that takes the slash for a part of a name.
#[test]
fn kept_slashes_ask_the_rule_of_the_decoded_path_too() {
    let path = Options { encoded_slashes: EncodedSlashes::Keep, ..Options::default() };
    let staff = |uri: &str, tag: &str| Endpoint {
        public: false,
        allowed_scopes: vec![vec![tag.to_owned()]],
        ..endpoint(uri, &["GET"])
    };
    let endpoints = vec![
        endpoint("/?", &["GET"]),
        staff("/*", "groups=admin"),
        endpoint("/api/?/issues", &["GET"]),
        endpoint("/api/*", &["GET"]),
        staff("/files/?/view", "groups=staff"),
        endpoint("/a%2Fb", &["GET"]),
        endpoint("/none/?", &["POST"]),
    ];
    let policy = Policy::compile(&Config { endpoints, path, ..Config::default() }).unwrap();
    let held = |group: &str| {
        policy.bind(&TagSet::from_claims(&serde_json::from_value(json!({"groups": [group]})).unwrap()))
    };
    let (staff, admin) = (held("staff"), held("admin"));
    let known = |held| Caller::Known { held, acr: None, auth_time: None };
    let decide = |target: &str, caller| {
        let ruling = policy.find(&Method::GET, &NormalPath::parse(target, &path).unwrap()).unwrap();
        let decision = policy.decide(ruling, caller, UnixTime(0));
        assert_eq!(
            ruling.is_public(),
            matches!(policy.decide(ruling, Caller::Anonymous, UnixTime(0)), Decision::Allow(_))
        );
        matches!(decision, Decision::Allow(_))
    };
    for (target, [nobody, as_staff, as_admin]) in [
        ("/x", [true; 3]),
        ("/admin%2Fx", [false, false, true]),
        ("/admin%2fx", [false, false, true]),
        ("/admin%5Cx", [false, false, true]),
        ("/a%2Fx%2Fy", [false, false, true]),
        // Written for the slash as it was sent.
        ("/a%2Fb", [true; 3]),
        // Both are public.
        ("/api/a%2Fb/issues", [true; 3]),
        // Neither is enough without the other.
        ("/files/a%2Fb/view", [false; 3]),
    ] {
        assert_eq!(decide(target, Caller::Anonymous), nobody, "{target}");
        assert_eq!(decide(target, known(&staff)), as_staff, "{target}");
        assert_eq!(decide(target, known(&admin)), as_admin, "{target}");
    }
    let ruling = policy.find(&Method::GET, &NormalPath::parse("/files/a%2Fb/view", &path).unwrap()).unwrap();
    for (held, uri) in [(&staff, "/*"), (&admin, "/files/?/view")] {
        let rule = policy.deciding(ruling, known(held), UnixTime(0)).unwrap();
        assert_eq!(rule.uri().as_ref(), uri, "whoever says no is named");
    }
    // Where the rules differ with and without parameters as well, nobody can tell which is meant.
    let endpoints = ["/?", "/a/*", "/a;v/*"].map(|uri| endpoint(uri, &["GET"])).to_vec();
    let policy = Policy::compile(&Config { endpoints, path, ..Config::default() }).unwrap();
    assert!(policy.find(&Method::GET, &NormalPath::parse("/a;v%2Fb", &path).unwrap()).is_err());
}

/// AZ-02: an application may take `get` for GET; a rule for all methods is not one for all spellings.
#[test]
fn a_star_is_no_method_in_lower_case() {
    let policy = compile(vec![endpoint("/*", &["*"]), endpoint("/admin", &["GET", "Odd"])]);
    for (method, path, expected) in [
        ("GET", "/admin", Some("/admin")),
        ("get", "/admin", None),
        ("Get", "/x", None),
        ("propfind", "/x", None),
        ("PROPFIND", "/x", Some("/*")),
        ("M-SEARCH", "/x", Some("/*")),
        ("Odd", "/admin", Some("/admin")),
        ("ODD", "/admin", Some("/*")),
    ] {
        assert_eq!(found(&policy, method, path).as_deref(), expected, "{method} {path}");
    }
}

/// A long path against many stars costs no more than both lengths multiplied.
#[test]
fn no_path_is_expensive() {
    let policy = gets(&["/*/a/*/a/*/a/*/a/*/a/*/a/*/a/*/b", "/*/*/*/*/*/*/*/c"]);
    let path = "/a".repeat(4000);
    let started = std::time::Instant::now();
    assert_eq!(found(&policy, "GET", &path), None);
    // The exponential walk would take longer than the universe has had.
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// Places are ranked anew at each segment, also where there is one place only: what was added up from segment to
/// segment would soon be more than a number holds.
#[test]
fn a_path_of_any_length_falls_under_its_rule() {
    for (patterns, end, expected) in [
        (&["/*"][..], "", "/*"),
        (&["/*", "/?"], "", "/*"),
        (&["/a/*", "/a/*/b"], "/b", "/a/*/b"),
        (&["/a/*", "/a/*/b"], "/c", "/a/*"),
    ] {
        for segments in (1..100).chain([4000]) {
            let path = format!("{}{end}", "/a".repeat(segments + 1));
            assert_eq!(
                found(&gets(patterns), "GET", &path).as_deref(),
                Some(expected),
                "{patterns:?} {path:.300}"
            );
        }
    }
}

#[test]
fn mistakes_are_told_all_at_once() {
    let with = |change: fn(&mut Endpoint)| {
        let mut endpoint = endpoint("/ok", &["GET"]);
        endpoint.public = false;
        change(&mut endpoint);
        endpoint
    };
    let endpoints = vec![
        with(|it| it.uri = "/ok".into()),
        with(|it| it.uri = "/ok/".into()),
        with(|it| it.uri = "/a*".into()),
        with(|it| it.uri = "admin".into()),
        with(|it| it.uri = "/a/../b".into()),
        with(|it| it.uri = "/a?x=1".into()),
        with(|it| it.methods = Vec::new()),
        with(|it| it.methods = vec!["get".into(), "CONNECT".into(), "A B".into()]),
        with(|it| {
            it.public = true;
            it.allowed_scopes = scopes(&[&["a=b"]]);
        }),
        with(|it| it.allowed_scopes = scopes(&[&[], &["nothing", "=x", "a*=b", "a=b\n", "a =b", "%61=b"]])),
        with(|it| it.required_acr = vec!["a b".into()]),
        with(|it| it.uri = "/ok//x".into()),
    ];
    let mistakes = Policy::compile(&Config { endpoints, ..Config::default() }).unwrap_err();
    let places: Vec<_> = mistakes.iter().map(|mistake| (mistake.endpoint, mistake.kind.clone())).collect();
    use MistakeKind as K;
    for expected in [
        (1, K::Duplicate("GET".into())),
        (2, K::WildcardInSegment),
        (3, K::Path(path::PathError::NotAPath)),
        (4, K::Path(path::PathError::DotSegment)),
        (5, K::Query),
        (6, K::NoMethods),
        (7, K::Method("GET".into())),
        (7, K::Method(String::new())),
        (8, K::PublicWithScopes),
        (9, K::EmptyClause),
        (9, K::NoEquals),
        (9, K::NoKey),
        (9, K::WildcardInKey),
        (9, K::Control),
        (9, K::SpaceInKey),
        (9, K::KeySpelling("a".into())),
        (10, K::AcrValue),
        (11, K::Path(path::PathError::EmptySegment)),
    ] {
        assert!(places.contains(&expected), "{expected:?} is not in {places:?}");
    }
    let twin = mistakes.iter().find(|mistake| mistake.endpoint == 1).and_then(|mistake| mistake.other);
    assert_eq!(twin, Some(0), "a duplicate names both places");
}

/// Of whom it can't be told whether the address is one of evil.com, is not let in as one, nor as one that is not.
#[test]
fn an_address_of_two_readings_helps_nobody() {
    for address in [
        "\\\"x@y\\\"@evil.com",
        "x@evil.com@good.com",
        "x@good.com@evil.com",
        "x@evil.com.",
        "x@EVIL.com ",
        " x@evil.com\\t",
    ] {
        let claims = format!(r#"{{"sub":"x","email":"{address}"}}"#);
        let rows: &[(Clauses, Clauses, bool)] = &[
            (&[&["email=*@evil.com"]], &[], false),
            (&[&["email!=*@evil.com"]], &[], false),
            (&[&["sub=x"]], &[&["email=*@evil.com"]], false),
            (&[&["sub=x"]], &[&["email!=*@evil.com"]], false),
            (&[&["sub=x"]], &[&["email=*@other.com"]], true),
            (&[&["email!=*@other.com"]], &[], true),
            (&[&["email=*"]], &[], true),
        ];
        for &(allowed, denied, expected) in rows {
            assert_eq!(
                Ask::new(allowed, denied).allows(&claims),
                expected,
                "{address} {allowed:?} {denied:?}"
            );
        }
    }
}

struct Ask {
    policy: Policy,
}

impl Ask {
    fn new(allowed: Clauses, denied: Clauses) -> Self {
        let mut endpoint = endpoint("/*", &["*"]);
        endpoint.public = false;
        endpoint.allowed_scopes = scopes(allowed);
        endpoint.denied_scopes = scopes(denied);
        Self { policy: compile(vec![endpoint]) }
    }

    fn allows(&self, claims: &str) -> bool {
        let held = self.policy.bind(&TagSet::from_claims(&serde_json::from_str(claims).unwrap()));
        let rule = self.policy.find(&Method::GET, &target("/")).unwrap();
        let caller = Caller::Known { held: &held, acr: None, auth_time: None };
        match self.policy.decide(rule, caller, UnixTime(0)) {
            Decision::Allow(_) => true,
            Decision::Deny(_) => false,
            other => panic!("{other:?}"),
        }
    }
}

/// Section 6 of the contract, and AZ-20: OR of ANDs; empty is never "allow".
#[test]
fn requirements() {
    const ALICE: &str = r#"{"sub":"alice","groups":["admin","staff"],"dept":"R*D","n":7,"home":"C:\\x",
        "email":"Alice@ACME.com","email_verified":true}"#;
    let rows: &[(Clauses, Clauses, bool)] = &[
        (&[&["groups=admin"]], &[], true),
        (&[&["groups=root"]], &[], false),
        (&[&["groups=admin", "groups=staff"]], &[], true),
        (&[&["groups=admin", "groups=root"]], &[], false),
        (&[&["groups=root"], &["sub=alice"]], &[], true),
        (&[], &[], false),
        (&[&["sub=*"]], &[], true),
        (&[&["phone=*"]], &[], false),
        (&[&["groups=ad*"]], &[], true),
        (&[&["groups=*min"]], &[], true),
        (&[&["groups=a*m*n"]], &[], true),
        (&[&["groups=ad*dmin"]], &[], false),
        (&[&["groups=a*x*n"]], &[], false),
        (&[&["groups=a*i*i*n"]], &[], false),
        (&[&["groups=a*d*i*n"]], &[], true),
        (&[&["groups!=root"]], &[], true),
        (&[&["groups!=admin"]], &[], false),
        (&[&["groups!=ad*"]], &[], false),
        (&[&["phone!=x"]], &[], true),
        (&[&["n=7"]], &[], true),
        (&[&["dept=R\\*D"]], &[], true),
        (&[&["dept=\\*"]], &[], false),
        // Before anything but a star, a backslash stands for itself.
        (&[&["home=C:\\x"]], &[], true),
        (&[&["home=C:*x"]], &[], true),
        (&[&["SUB=alice"]], &[], false),
        (&[&["sub=Alice"]], &[], false),
        (&[&["sub=alice"]], &[&["groups=staff"]], false),
        (&[&["sub=alice"]], &[&["groups=staff", "groups=root"]], true),
        (&[&["sub=alice"]], &[&["groups!=root"]], false),
        // The domain of an address has no case, its local part has.
        (&[&["email=Alice@acme.com"]], &[], true),
        (&[&["email=alice@acme.com"]], &[], false),
        (&[&["email=*@acme.com"]], &[], true),
        (&[&["email=*@ACME.COM"]], &[], true),
        (&[&["email=*@evilacme.com"]], &[], false),
        (&[&["email=*@*.com"]], &[], true),
        (&[&["sub=alice"]], &[&["email=*@ACME.com"]], false),
        (&[&["@auth=x"]], &[], false),
    ];
    for &(allowed, denied, expected) in rows {
        assert_eq!(Ask::new(allowed, denied).allows(ALICE), expected, "{allowed:?} without {denied:?}");
    }
}

/// An address that the provider did not verify proves nothing, and hides from no denial.
#[test]
fn unverified_addresses() {
    for verified in ["false", "\"false\""] {
        let claims = format!(r#"{{"sub":"x","email":"bob@acme.com","email_verified":{verified}}}"#);
        let rows: &[(Clauses, Clauses, bool)] = &[
            (&[&["email=bob@acme.com"]], &[], false),
            (&[&["email=*@acme.com"]], &[], false),
            (&[&["email=*"]], &[], false),
            (&[&["email!=eve@acme.com"]], &[], false),
            (&[&["sub=x"]], &[], true),
            (&[&["sub=x"]], &[&["email=bob@acme.com"]], false),
            (&[&["sub=x"]], &[&["email!=bob@acme.com"]], false),
            (&[&["sub=x"]], &[&["email=eve@acme.com"]], true),
        ];
        for &(allowed, denied, expected) in rows {
            assert_eq!(Ask::new(allowed, denied).allows(&claims), expected, "{allowed:?} without {denied:?}");
        }
    }
    for address in ["a@evil.test@acme.com", "acme.com", "@acme.com@", "a@acme.com.evil.test", "a@acme.com "] {
        let claims = format!(r#"{{"email":"{address}"}}"#);
        assert!(!Ask::new(&[&["email=*@acme.com"]], &[]).allows(&claims), "{address}");
    }
}

#[test]
fn needed_claims_are_top_level_names() {
    let policy =
        Ask::new(&[&["email=*@x", "address:locality=Paris", "https://a.test/r=x"]], &[&["a%3Ab!=c", "@x=y"]]);
    let needed: Vec<_> = policy.policy.needed_claims().iter().map(String::as_str).collect();
    assert_eq!(needed, ["a:b", "address", "email", "email_verified", "https://a.test/r"]);
}

#[test]
fn a_login_can_be_too_weak_or_too_old() {
    let mut strong = endpoint("/*", &["*"]);
    strong.public = false;
    strong.allowed_scopes = scopes(&[&["sub=alice"]]);
    strong.required_acr = vec!["mfa".into(), "hw".into()];
    strong.max_authentication_age = Some(Duration::from_secs(900));
    let policy = compile(vec![strong]);
    let rule = policy.find(&Method::GET, &target("/")).unwrap();
    let alice = policy.bind(&TagSet::from_claims(&serde_json::from_str(r#"{"sub":"alice"}"#).unwrap()));
    let bob = policy.bind(&TagSet::from_claims(&serde_json::from_str(r#"{"sub":"bob"}"#).unwrap()));
    let now = UnixTime(10_000);
    for (held, acr, auth_time, expected) in [
        (&alice, Some("hw"), Some(9_100), "allow"),
        (&alice, Some("hw"), Some(9_099), "step up"),
        (&alice, Some("pwd"), Some(10_000), "step up"),
        (&alice, None, Some(10_000), "step up"),
        (&alice, Some("mfa"), None, "step up"),
        // A stronger login would not help Bob.
        (&bob, Some("pwd"), None, "deny"),
    ] {
        let caller = Caller::Known { held, acr, auth_time: auth_time.map(UnixTime) };
        let said = match policy.decide(rule, caller, now) {
            Decision::Allow(_) => "allow",
            Decision::StepUp(StepUp { acr_values, max_age: Some(_) }) if acr_values == ["mfa", "hw"] => {
                "step up"
            }
            Decision::Deny(_) => "deny",
            _ => "something else",
        };
        assert_eq!(said, expected, "{acr:?} {auth_time:?}");
    }
    assert!(matches!(policy.decide(rule, Caller::Anonymous, now), Decision::Login(_)));
}

#[test]
fn observe_turns_a_no_into_a_note() {
    let mut closed = endpoint("/*", &["*"]);
    closed.public = false;
    let config = Config { endpoints: vec![closed], mode: Mode::Observe, ..Config::default() };
    let policy = Policy::compile(&config).unwrap();
    let rule = policy.find(&Method::GET, &target("/")).unwrap();
    let held = policy.bind(&TagSet::default());
    let known = Caller::Known { held: &held, acr: None, auth_time: None };
    assert!(matches!(policy.decide(rule, known, UnixTime(0)), Decision::Observe(_, Denial::Nobody)));
    assert!(matches!(
        policy.decide(Ruling::default(), known, UnixTime(0)),
        Decision::Observe(_, Denial::NoRule)
    ));
    assert!(matches!(policy.decide(rule, Caller::Anonymous, UnixTime(0)), Decision::Login(_)));
}

#[test]
fn a_preflight_passes_only_where_configured() {
    let mut headers = http::HeaderMap::new();
    headers.insert("origin", "https://a.test".parse().unwrap());
    headers.insert("access-control-request-method", "PUT".parse().unwrap());
    let policy = |cors_preflight| Policy::compile(&Config { cors_preflight, ..Config::default() }).unwrap();
    let forward = policy(CorsPreflight::Forward);
    assert!(forward.preflight(&Method::OPTIONS, &headers).is_some());
    assert!(forward.preflight(&Method::GET, &headers).is_none());
    assert!(policy(CorsPreflight::Enforce).preflight(&Method::OPTIONS, &headers).is_none());
    headers.remove("origin");
    assert!(forward.preflight(&Method::OPTIONS, &headers).is_none());
}

/// How specific a match is, segment by segment, as the contract has it; smaller is more specific. `None`: no match.
fn reference(pattern: &[Segment], path: &[&str]) -> Option<Vec<u8>> {
    const LITERAL: u8 = 0;
    const ONE: u8 = 1;
    const SEVERAL: u8 = 2;
    const END: u8 = 0;
    match (pattern, path) {
        ([], []) => Some(vec![END]),
        ([Segment::One], []) => Some(vec![ONE]),
        ([Segment::Several], []) => Some(vec![SEVERAL]),
        ([Segment::Literal(name), rest @ ..], [first, left @ ..]) if name.as_ref() == *first => {
            reference(rest, left).map(|rank| [vec![LITERAL], rank].concat())
        }
        ([Segment::One, rest @ ..], [_, left @ ..]) => {
            reference(rest, left).map(|rank| [vec![ONE], rank].concat())
        }
        ([Segment::Several, rest @ ..], [_, ..]) => (1..=path.len())
            .filter_map(|taken| {
                let after = if rest.is_empty() && taken == path.len() {
                    Some(vec![END])
                } else {
                    reference(rest, &path[taken..])
                };
                after.map(|rank| [vec![SEVERAL; taken], rank].concat())
            })
            .min(),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// AZ-16: the tree finds what trying every pattern finds, in whatever order they were declared.
    #[test]
    fn the_tree_agrees_with_trying_everything(
        patterns in prop::collection::btree_set("(/(a|b|\\?|\\*)){1,4}", 1..8),
        path in "(/(a|b|c)){0,5}",
        rotation in 0..8_usize,
    ) {
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let mut order: Vec<&str> = patterns.iter().map(String::as_str).collect();
        let count = order.len();
        order.rotate_left(rotation % count);
        let policy = gets(&order);
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let ranked = |pattern: &str| {
            let parsed = compile::parse_pattern(pattern, &Options::default()).unwrap();
            reference(&parsed, &segments)
        };
        let best = patterns.iter().filter_map(|pattern| ranked(pattern)).min();
        let found = found(&policy, "GET", &path);
        prop_assert_eq!(found.as_deref().and_then(ranked), best);
    }
}
