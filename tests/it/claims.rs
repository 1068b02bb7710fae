//! AZ-18, AZ-19, AZ-20 from a token to a decision: no claim stands for another, none for what only the platform may
//! say, and rules are ORs of ANDs in which nothing is nobody.

use serde_json::{Value, json};

use crate::support::client::FETCH;
use crate::support::idp::set;
use crate::support::stage::Stage;

/// Whether somebody with these claims may see `/guarded/` where this is required.
async fn table(required: Value, cases: Vec<(Value, bool)>) {
    let stage = Stage::with(|plan| {
        plan.endpoints(json!([
            { "URI": "/public/*", "methods": ["GET"], "public": true },
            { "URI": "/guarded/*", "methods": ["GET"], "allowedScopes": required },
            { "URI": "/app/*", "methods": ["GET"], "allowedScopes": [["sub=*"]] },
        ]));
    })
    .await;
    let usual = stage.idp.behaviour().user;
    for (claims, allowed) in cases {
        stage.idp.change(|behaviour| {
            behaviour.user = usual.clone();
            for (name, value) in claims.as_object().unwrap() {
                set(&mut behaviour.user, name, value.clone());
            }
            behaviour.user_info = behaviour.user.clone();
        });
        let mut browser = stage.browser();
        browser.follow(&stage.url("/app/")).await.expect(200);
        let before = stage.app.count();
        let answer = browser.send("GET", &stage.url("/guarded/"), &FETCH, b"").await;
        assert_eq!(answer.status, if allowed { 200 } else { 403 }, "{required} by {claims}: {answer:?}");
        assert_eq!(stage.app.count() - before, usize::from(allowed), "{required} by {claims}");
    }
}

/// AZ-18: names.
#[tokio::test]
async fn a_name_is_not_forged() {
    table(
        json!([["a:b=x"]]),
        vec![
            (json!({ "a": { "b": "x" } }), true),
            (json!({ "a": { "b": ["y", "x"] } }), true),
            (json!({ "a:b": "x" }), false),
            (json!({ "a": { "b:": "x" } }), false),
            (json!({ "a": { "c": "x" } }), false),
            (json!({ "a": "b=x" }), false),
            (json!({ "a:b=x": "" }), false),
            (json!({ "a:b=x": true }), false),
        ],
    )
    .await;
    table(
        json!([["role=admin"]]),
        vec![
            (json!({ "role": "admin" }), true),
            (json!({ "role": ["x", "admin"] }), true),
            (json!({ "role=admin": "" }), false),
            (json!({ "role": "admin " }), false),
            (json!({ "role": "admin\n" }), false),
            (json!({ "role": "x\nrole=admin" }), false),
            (json!({ "role": "x admin" }), false),
            (json!({ "role": "x,admin" }), false),
            (json!({ "role\n": "admin" }), false),
            (json!({ " role": "admin" }), false),
            (json!({ "Role": "admin" }), false),
            (json!({ "role": "Admin" }), false),
            // Cyrillic letters that look the same, and letters that a normalisation would make the same.
            (json!({ "role": "\u{430}dmin" }), false),
            (json!({ "r\u{43e}le": "admin" }), false),
            (json!({ "role": "\u{ff41}dmin" }), false),
            (json!({ "role": "admin\u{200b}" }), false),
            (json!({ "role": { "admin": true } }), false),
            (json!({ "role": null }), false),
        ],
    )
    .await;
}

/// AZ-18: values may have what names may not.
#[tokio::test]
async fn a_value_is_taken_as_it_is() {
    table(
        json!([["a=b=c"]]),
        vec![
            (json!({ "a": "b=c" }), true),
            (json!({ "a=b": "c" }), false),
            (json!({ "a": { "b": "c" } }), false),
        ],
    )
    .await;
    table(
        json!([["n=16000000000"]]),
        vec![
            (json!({ "n": 16_000_000_000_u64 }), true),
            (json!({ "n": "16000000000" }), true),
            (json!({ "n": 1.6e10 }), true),
            (json!({ "n": 16_000_000_000.5 }), false),
            (json!({ "n": "1.6e10" }), false),
        ],
    )
    .await;
    table(
        json!([["t=true"]]),
        vec![(json!({ "t": true }), true), (json!({ "t": false }), false), (json!({ "t": 1 }), false)],
    )
    .await;
}

/// AZ-19: what begins with `@` or `$` is said by the platform, and never by a token.
#[tokio::test]
async fn reserved_tags_never_come_from_claims() {
    table(
        json!([["@auth:realm=oidc"], ["$identity=processing-unit"], ["@sys:name=db"]]),
        vec![
            (json!({ "@auth:realm": "oidc", "$identity": "processing-unit", "@sys:name": "db" }), false),
            (json!({ "@auth": { "realm": "oidc" }, "@sys": { "name": "db" } }), false),
            (json!({ "auth:realm": "oidc", "%40auth:realm": "oidc" }), false),
            (json!({ "": { "@auth:realm": "oidc" } }), false),
            (json!({ "scope": "@auth:realm=oidc $identity=processing-unit" }), false),
        ],
    )
    .await;
}

/// AZ-20: AND within a clause, OR across them.
#[tokio::test]
async fn clauses_are_an_or_of_ands() {
    let groups: Vec<String> = (0..1_000).map(|index| format!("g{index}")).collect();
    table(
        json!([["a=1", "b=2"], ["c=3"], ["groups=g999", "groups=g0"]]),
        vec![
            (json!({ "a": "1", "b": "2" }), true),
            (json!({ "a": "1" }), false),
            (json!({ "b": "2" }), false),
            (json!({ "a": "2", "b": "1" }), false),
            (json!({ "c": "3" }), true),
            (json!({ "c": ["3", "3"], "a": "1" }), true),
            (json!({ "groups": groups }), true),
            (json!({ "groups": groups[..999] }), false),
            (json!({ "groups": [] }), false),
            (json!({ "groups": null }), false),
        ],
    )
    .await;
    // An empty list is nobody; an empty clause would be everybody, and is no configuration.
    table(json!([]), vec![(json!({ "a": "1" }), false)]).await;
    let empty = Stage::build(
        |plan| {
            plan.endpoints(json!([{ "URI": "/*", "methods": ["GET"], "allowedScopes": [[]] }]));
            plan.wait_for_discovery = false;
        },
        std::sync::Arc::new(tempfile::TempDir::new().unwrap()),
    )
    .await;
    let refused = empty.expect_err("an empty clause is a mistake");
    assert_eq!(refused.code, Some(64), "{refused:?}");
    assert!(refused.stderr.contains("allowedScopes"), "{refused:?}");
}
