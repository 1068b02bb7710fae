//! What a mistake, a refusal and a login that is needed say, and how deep a pattern may be.

use super::*;

/// Who is not logged in is told at once what the login has to be.
#[test]
fn a_login_is_asked_for_what_its_rule_wants() {
    let mut strong = endpoint("/strong", &["*"]);
    strong.public = false;
    strong.required_acr = vec!["mfa".into()];
    strong.max_authentication_age = Some(Duration::from_secs(900));
    let mut usual = endpoint("/usual", &["*"]);
    usual.public = false;
    let endpoints = vec![strong, usual];
    // What is only observed must not keep anybody from logging in.
    let observing = Config { mode: Mode::Observe, endpoints: endpoints.clone(), ..Config::default() };
    let observing = Policy::compile(&observing).unwrap();
    let policy = compile(endpoints);
    let wanted = StepUp { acr_values: &["mfa".into()], max_age: Some(Duration::from_secs(900)) };
    for (path, expected) in
        [("/strong", wanted), ("/usual", StepUp::default()), ("/no-rule", StepUp::default())]
    {
        let rule = policy.find(&Method::GET, &target(path)).unwrap();
        let Decision::Login(wishes) = policy.decide(rule, Caller::Anonymous, UnixTime(0)) else {
            panic!("{path}: something else than a login")
        };
        assert_eq!(wishes, expected, "{path}");
        let rule = observing.find(&Method::GET, &target(path)).unwrap();
        let decision = observing.decide(rule, Caller::Anonymous, UnixTime(0));
        assert!(matches!(decision, Decision::Login(wishes) if wishes == StepUp::default()), "{path}");
    }
}

#[test]
fn a_pattern_has_a_bounded_depth() {
    let deep = |segments: usize| {
        let endpoints = vec![endpoint(&"/a".repeat(segments), &["GET"])];
        Policy::compile(&Config { endpoints, ..Config::default() }).map(|_| ())
    };
    assert_eq!(deep(63), Ok(()));
    assert_eq!(deep(64), Ok(()));
    for segments in [65, 66, 1_000] {
        let mistakes = deep(segments).unwrap_err();
        assert_eq!(mistakes.len(), 1, "{segments}");
        assert_eq!(mistakes[0].kind, MistakeKind::TooDeep, "{segments}");
    }
}

/// Each mistake says what to do, and no two say the same.
#[test]
fn mistakes_have_words_of_their_own() {
    use MistakeKind as K;
    let mistakes = [
        K::Path(path::PathError::Escape),
        K::Path(path::PathError::NotAPath),
        K::Path(path::PathError::DotSegment),
        K::WildcardInSegment,
        K::Query,
        K::TooDeep,
        K::NoMethods,
        K::Method("GET".into()),
        K::Method(String::new()),
        K::MethodTwice("GET".into()),
        K::PublicWithScopes,
        K::EmptyClause,
        K::NoEquals,
        K::NoKey,
        K::WildcardInKey,
        K::Control,
        K::AcrValue,
        K::Duplicate("GET".into()),
        K::SpaceInKey,
        K::KeySpelling("a%3Ab".into()),
    ];
    let mut texts: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert!(texts.iter().all(|text| text.len() > 20), "{texts:?}");
    for (mistake, word) in
        [(7, "write GET"), (8, "not the name"), (9, "GET stands here twice"), (17, "GET"), (19, "a%3Ab=")]
    {
        assert!(texts[mistake].contains(word), "{}", texts[mistake]);
    }
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), mistakes.len());
}

#[test]
fn refusals_have_words_of_their_own() {
    let tags: Arc<[String]> = Arc::new(["a=b".to_owned()]);
    let denials = [
        Denial::NoRule,
        Denial::Nobody,
        Denial::Denied(&tags),
        Denial::NotAllowed { email_unverified: true },
        Denial::NotAllowed { email_unverified: false },
        Denial::StepUp,
    ];
    let mut texts: Vec<String> = denials.iter().map(ToString::to_string).collect();
    assert!(texts[3].contains("not verified") && !texts[4].contains("verified"), "{texts:?}");
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), denials.len());
}
