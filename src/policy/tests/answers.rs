//! What a policy tells records, pages and the log besides its decision.

use super::*;

fn one_rule(allowed: Clauses, denied: Clauses) -> Policy {
    let mut closed = endpoint("/*", &["GET"]);
    closed.public = false;
    closed.allowed_scopes = scopes(allowed);
    closed.denied_scopes = scopes(denied);
    compile(vec![closed])
}

fn held(policy: &Policy, claims: &str) -> Held {
    policy.bind(&TagSet::from_claims(&serde_json::from_str(claims).unwrap()))
}

fn only_rule(policy: &Policy) -> &Rule {
    policy.find(&Method::GET, &target("/")).unwrap().rule.unwrap()
}

fn state(tag: &str, held: bool) -> TagState {
    TagState { tag: tag.to_owned(), held }
}

#[test]
fn each_clause_is_told_with_what_of_it_holds() {
    let policy = one_rule(
        &[&["groups=admin", "dept=x"], &["groups=staff", "email=a@x.test"]],
        &[&["dept=y"], &["groups=staff", "email!=a@x.test"]],
    );
    let caller = held(&policy, r#"{"groups":["staff"],"email":"a@x.test","email_verified":false}"#);
    let rule = only_rule(&policy);
    let allowed = [
        vec![state("groups=admin", false), state("dept=x", false)],
        // An address that is not verified proves nothing.
        vec![state("groups=staff", true), state("email=a@x.test", false)],
    ];
    assert_eq!(policy.allowed_states(rule, &caller), allowed);
    let denied =
        [vec![state("dept=y", false)], vec![state("groups=staff", true), state("email!=a@x.test", true)]];
    assert_eq!(policy.denied_states(rule, &caller), denied);
    let public = gets(&["/*"]);
    let caller = held(&public, "{}");
    assert!(public.allowed_states(only_rule(&public), &caller).is_empty());
    assert!(public.denied_states(only_rule(&public), &caller).is_empty());
}

/// The record names the first clause that lets the caller pass, and names none where none does.
#[test]
fn the_clause_that_decided_is_named() {
    let policy = one_rule(&[&["groups=admin"], &["groups=staff", "dept=x"], &["dept=x"]], &[]);
    let named = |claims: &str| policy.deciding_tags(only_rule(&policy), &held(&policy, claims));
    let both = named(r#"{"groups":["staff"],"dept":"x"}"#);
    assert_eq!(both.as_deref(), Some(&["groups=staff".to_owned(), "dept=x".to_owned()][..]));
    assert_eq!(named(r#"{"dept":"x"}"#).as_deref(), Some(&["dept=x".to_owned()][..]));
    assert_eq!(named(r#"{"groups":["staff"]}"#), None);
    let public = gets(&["/*"]);
    assert_eq!(public.deciding_tags(only_rule(&public), &held(&public, "{}")), None);
}

/// A refusal blames the address only if it is one that was not verified, and a clause asks for one.
#[test]
fn only_an_unverified_address_is_blamed() {
    let rows: &[(Clauses, &str, bool)] = &[
        (&[&["email=a@x.test"]], r#"{"email":"a@x.test","email_verified":false}"#, true),
        (&[&["dept=x"], &["dept=y", "email=*"]], r#"{"email":"a@x.test","email_verified":false}"#, true),
        (&[&["email=a@x.test"]], r#"{"email":"b@x.test","email_verified":true}"#, false),
        (&[&["dept=x"]], r#"{"email":"a@x.test","email_verified":false}"#, false),
    ];
    for &(allowed, claims, expected) in rows {
        let policy = one_rule(allowed, &[]);
        let held = held(&policy, claims);
        let caller = Caller::Known { held: &held, acr: None, auth_time: None };
        match policy.decide(policy.find(&Method::GET, &target("/")).unwrap(), caller, UnixTime(0)) {
            Decision::Deny(Denial::NotAllowed { email_unverified }) => {
                assert_eq!(email_unverified, expected, "{allowed:?} {claims}");
            }
            other => panic!("{allowed:?} {claims}: {other:?}"),
        }
    }
}

#[test]
fn a_rule_knows_where_it_stands_and_a_policy_what_it_is() {
    let mut closed = endpoint("/b/?", &["GET", "POST"]);
    closed.public = false;
    let policy = compile(vec![endpoint("/a", &["*"]), closed]);
    let rule = policy.find(&Method::POST, &target("/b/c")).unwrap().rule.unwrap();
    let words = [rule.spec(), rule.uri(), rule.method()].map(AsRef::as_ref);
    assert_eq!(words, ["spec", "/b/?", "POST"]);
    assert!(!rule.is_public());
    assert_eq!(policy.rule_count(), 3);
    assert_eq!(policy.mode(), Mode::Enforce);
    assert!(!policy.all_public());
    assert!(gets(&["/a", "/b"]).all_public());
    let observing = Policy::compile(&Config { mode: Mode::Observe, ..Config::default() }).unwrap();
    assert_eq!(observing.mode(), Mode::Observe);
}

/// What is too old by no more than the tolerance for clocks is fresh enough, and what observing lets through is noted.
#[test]
fn a_login_is_as_much_fresher_as_clocks_may_differ() {
    let mut fresh = endpoint("/*", &["*"]);
    fresh.public = false;
    fresh.allowed_scopes = scopes(&[&["sub=*"]]);
    fresh.max_authentication_age = Some(Duration::from_secs(900));
    for mode in [Mode::Enforce, Mode::Observe] {
        let clock_skew = Duration::from_secs(60);
        let config = Config { endpoints: vec![fresh.clone()], mode, clock_skew, ..Config::default() };
        let policy = Policy::compile(&config).unwrap();
        let held = held(&policy, r#"{"sub":"alice"}"#);
        for (age, expected) in [(0, true), (900, true), (960, true), (961, false)] {
            let auth_time = Some(UnixTime(10_000 - age));
            let caller = Caller::Known { held: &held, acr: None, auth_time };
            match (
                policy.decide(policy.find(&Method::GET, &target("/")).unwrap(), caller, UnixTime(10_000)),
                mode,
            ) {
                (Decision::Allow(_), _) => assert!(expected, "{age}"),
                (Decision::StepUp(_), Mode::Enforce) => assert!(!expected, "{age}"),
                (Decision::Observe(_, Denial::StepUp), Mode::Observe) => assert!(!expected, "{age}"),
                (other, _) => panic!("{age}: {other:?}"),
            }
        }
    }
}

/// Each of the three headers makes the difference between a preflight and another request.
#[test]
fn a_preflight_has_all_its_marks_and_wants_no_tunnel() {
    let config = Config { cors_preflight: CorsPreflight::Forward, ..Config::default() };
    let policy = Policy::compile(&config).unwrap();
    let (origin, asked) = (("origin", "https://a.test"), ("access-control-request-method", "PUT"));
    for (headers, expected) in [
        (&[origin, asked][..], true),
        (&[origin], false),
        (&[asked], false),
        (&[], false),
        (&[origin, asked, ("upgrade", "websocket")], false),
    ] {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers: http::HeaderMap = headers.collect();
        assert_eq!(policy.preflight(&Method::OPTIONS, &headers).is_some(), expected, "{headers:?}");
    }
}
