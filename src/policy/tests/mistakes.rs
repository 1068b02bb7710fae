//! Where a mistake is: who reads the message looks at that place.

use super::*;

fn mistakes(change: impl FnOnce(&mut Endpoint)) -> Vec<(MistakeField, MistakeKind)> {
    let mut endpoint = endpoint("/ok", &["GET"]);
    endpoint.public = false;
    change(&mut endpoint);
    match Policy::compile(&Config { endpoints: vec![endpoint], ..Config::default() }) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.into_iter().map(|mistake| (mistake.field, mistake.kind)).collect(),
    }
}

#[test]
fn methods_are_wrong_one_by_one() {
    use MistakeKind as K;
    let of = |methods: &[&str]| {
        mistakes(|it| it.methods = methods.iter().map(|method| (*method).to_owned()).collect())
    };
    let at = |place, kind| vec![(MistakeField::Method(place), kind)];
    assert_eq!(of(&[]), [(MistakeField::Methods, K::NoMethods)]);
    assert_eq!(of(&["GET", "*", "PURGE"]), []);
    // A name of one's own may be in lower case; that of a standard method is a slip.
    assert_eq!(of(&["GET", "purge"]), []);
    assert_eq!(of(&["PUT", "post"]), at(1, K::Method("POST".into())));
    assert_eq!(of(&["GET", "CONNECT"]), at(1, K::Method(String::new())));
    assert_eq!(of(&["GET", "A B"]), at(1, K::Method(String::new())));
    assert_eq!(of(&["GET", "PUT", "GET"]), at(2, K::MethodTwice("GET".into())));
}

/// A public endpoint asks for nothing: each question alone beside `public` is a mistake.
#[test]
fn public_goes_with_no_question() {
    let questions: [fn(&mut Endpoint); 4] = [
        |it| it.allowed_scopes = scopes(&[&["a=b"]]),
        |it| it.denied_scopes = scopes(&[&["a=b"]]),
        |it| it.required_acr = vec!["mfa".into()],
        |it| it.max_authentication_age = Some(Duration::from_secs(1)),
    ];
    for (number, question) in questions.iter().enumerate() {
        let both = mistakes(|it| {
            it.public = true;
            question(it);
        });
        assert_eq!(both, [(MistakeField::Public, MistakeKind::PublicWithScopes)], "{number}");
        assert_eq!(mistakes(question), [], "{number}");
    }
    assert_eq!(mistakes(|it| it.public = true), []);
}

#[test]
fn clauses_tags_and_classes_are_named_by_their_place() {
    use MistakeField as F;
    use MistakeKind as K;
    let allowed = mistakes(|it| it.allowed_scopes = scopes(&[&["a=b", "nothing"], &[]]));
    assert_eq!(allowed, [(F::AllowedScopes(0, 1), K::NoEquals), (F::AllowedScopesClause(1), K::EmptyClause)]);
    let denied = mistakes(|it| it.denied_scopes = scopes(&[&[], &["!=x", "a=b"]]));
    assert_eq!(denied, [(F::DeniedScopesClause(0), K::EmptyClause), (F::DeniedScopes(1, 0), K::NoKey)]);
    for (acr, is_wrong) in [("urn:mfa", false), ("", true), ("a b", true), ("a\u{7}", true)] {
        let expected = if is_wrong { vec![(F::RequiredAcr(1), K::AcrValue)] } else { Vec::new() };
        assert_eq!(mistakes(|it| it.required_acr = vec!["ok".into(), acr.into()]), expected, "{acr:?}");
    }
}

/// A pattern that can't be read hides no mistake in the methods, and a duplicate names the method that is one.
#[test]
fn a_mistake_hides_no_other() {
    let both = mistakes(|it| {
        it.uri = "no-slash".into();
        it.methods = vec!["get".into()];
    });
    let uri = (MistakeField::Uri, MistakeKind::Path(path::PathError::NotAPath));
    assert_eq!(both, [uri, (MistakeField::Method(0), MistakeKind::Method("GET".into()))]);
    let endpoints =
        vec![endpoint("/x", &["PUT"]), endpoint("/a", &["PUT"]), endpoint("/a/", &["GET", "PUT"])];
    let twice = Policy::compile(&Config { endpoints, ..Config::default() }).unwrap_err();
    let kind = MistakeKind::Duplicate("PUT".into());
    let field = MistakeField::Method(1);
    assert_eq!(twice, [Mistake { endpoint: 2, field, kind, other: Some(1) }]);
}

#[test]
fn wildcards_are_whole_segments_and_queries_are_none() {
    use MistakeKind as K;
    for (uri, expected) in [
        ("/*", None),
        ("/?/a", None),
        ("/a*", Some(K::WildcardInSegment)),
        ("/*a", Some(K::WildcardInSegment)),
        ("/?a", Some(K::WildcardInSegment)),
        ("/a?/b", Some(K::WildcardInSegment)),
        ("/a?b", Some(K::Query)),
        ("/%2A", None),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|kind| (MistakeField::Uri, kind)).collect();
        assert_eq!(mistakes(|it| it.uri = uri.into()), expected, "{uri}");
    }
}
