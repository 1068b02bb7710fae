//! The claims of a login: those of the ID token, completed by UserInfo where that is allowed to.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::tag::Claims;

/// Claims about the token or the authentication, not about the person: UserInfo may not bring them in.
const PROTOCOL_CLAIMS: [&str; 19] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "nonce",
    "acr",
    "amr",
    "auth_time",
    "azp",
    "sid",
    "at_hash",
    "c_hash",
    "s_hash",
    "events",
    "cnf",
    "act",
];

/// Whether a needed claim is missing in `claims`.
pub(super) fn lacks_needed(claims: &Map<String, Value>, needed: &BTreeSet<String>) -> bool {
    needed.iter().any(|name| !claims.contains_key(name) && !PROTOCOL_CLAIMS.contains(&name.as_str()))
}

/// The ID token's claims, and those of UserInfo that it does not have. The ID token is signed, so it wins;
/// what it says of the token or the authentication can't be added to.
pub(super) fn merge(id_token: &Map<String, Value>, user_info: Map<String, Value>) -> Claims {
    let mut merged = id_token.clone();
    let mail = user_info.get("email").cloned();
    let verified = user_info.get("email_verified").cloned();
    for (name, value) in user_info {
        if !PROTOCOL_CLAIMS.contains(&name.as_str()) && !merged.contains_key(&name) {
            merged.insert(name, value);
        }
    }
    pair_email(&mut merged, id_token, mail, verified);
    merged
}

/// `email_verified` speaks about the `email` beside it: a flag must never vouch for the address of the other
/// source.
fn pair_email(
    merged: &mut Claims,
    id_token: &Map<String, Value>,
    mail: Option<Value>,
    verified: Option<Value>,
) {
    const FLAG: &str = "email_verified";
    match (id_token.get("email"), mail) {
        // The token's address with the other source's flag: only if that is about the same address.
        (Some(own), Some(other)) if !id_token.contains_key(FLAG) && *own != other => {
            merged.remove(FLAG);
        }
        // The other source's address: its flag, whatever the token's flag was about.
        (None, Some(_)) => {
            if let Some(verified) = verified {
                merged.insert(FLAG.to_owned(), verified);
            }
        }
        _ => {}
    }
}

/// The first needed claim that is missing because the provider left it out for its size: named by
/// `_claim_names` (OIDC Core section 5.6.2), or groups with the mark `hasgroups`.
pub(super) fn overage(claims: &Map<String, Value>, needed: &BTreeSet<String>) -> Option<String> {
    let elsewhere = claims.get("_claim_names").and_then(Value::as_object);
    let marked = claims.get("hasgroups").is_some_and(|mark| *mark == true || *mark == "true");
    let left_out = |name: &&String| {
        !claims.contains_key(*name)
            && (elsewhere.is_some_and(|names| names.contains_key(*name)) || (marked && *name == "groups"))
    };
    needed.iter().find(left_out).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn merging() {
        let rows = [
            // ID token, UserInfo, merged
            (json!({"sub": "a"}), json!({"sub": "a", "groups": ["x"]}), json!({"sub": "a", "groups": ["x"]})),
            (json!({"groups": ["x"]}), json!({"groups": ["y"]}), json!({"groups": ["x"]})),
            (
                json!({"sub": "a"}),
                json!({"acr": "mfa", "auth_time": 1, "amr": ["otp"], "sid": "s"}),
                json!({"sub": "a"}),
            ),
            (
                json!({"email": "a@x"}),
                json!({"email": "b@x", "email_verified": true}),
                json!({"email": "a@x"}),
            ),
            (
                json!({"email": "a@x"}),
                json!({"email": "a@x", "email_verified": false}),
                json!({"email": "a@x", "email_verified": false}),
            ),
            (
                json!({"email": "a@x"}),
                json!({"email_verified": false}),
                json!({"email": "a@x", "email_verified": false}),
            ),
            (
                json!({"email_verified": true}),
                json!({"email": "b@x", "email_verified": false}),
                json!({"email_verified": false, "email": "b@x"}),
            ),
            (
                json!({"email": "a@x", "email_verified": false}),
                json!({"email": "a@x", "email_verified": true}),
                json!({"email": "a@x", "email_verified": false}),
            ),
        ];
        for (id_token, user_info, merged) in rows {
            let outcome = Value::from(merge(&map(id_token.clone()), map(user_info.clone())));
            assert_eq!(outcome, merged, "{id_token} + {user_info}");
        }
    }

    #[test]
    fn overages() {
        let needed = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        for (claims, names, found) in [
            (json!({"_claim_names": {"groups": "src1"}}), vec!["groups"], Some("groups")),
            (json!({"_claim_names": {"groups": "src1"}}), vec!["roles"], None),
            (json!({"_claim_names": {"groups": "src1"}, "groups": ["a"]}), vec!["groups"], None),
            (json!({"hasgroups": true}), vec!["groups"], Some("groups")),
            (json!({"hasgroups": true}), vec!["roles"], None),
            (json!({"hasgroups": false}), vec!["groups"], None),
            (json!({"_claim_names": "groups"}), vec!["groups"], None),
        ] {
            let outcome = overage(&map(claims.clone()), &needed(&names));
            assert_eq!(outcome.as_deref(), found, "{claims} {names:?}");
        }
    }

    #[test]
    fn protocol_claims_are_never_a_reason_to_ask() {
        let needed = |name: &str| BTreeSet::from([name.to_owned()]);
        let claims = map(json!({"sub": "a"}));
        for (name, lacking) in [("sub", false), ("acr", false), ("groups", true)] {
            assert_eq!(lacks_needed(&claims, &needed(name)), lacking, "{name}");
        }
    }
}
