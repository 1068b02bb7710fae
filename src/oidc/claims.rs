//! The claims of a login or a refresh: those of the ID token, completed by UserInfo where that is allowed to.

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

const EMAIL: &str = "email";
const EMAIL_VERIFIED: &str = "email_verified";

/// Whether any claim that UserInfo could bring is needed.
pub(super) fn needs_any(needed: &BTreeSet<String>) -> bool {
    needed.iter().any(|name| !PROTOCOL_CLAIMS.contains(&name.as_str()))
}

/// Whether a needed claim is missing in `claims`.
pub(super) fn lacks_needed(claims: &Map<String, Value>, needed: &BTreeSet<String>) -> bool {
    needed.iter().any(|name| !claims.contains_key(name) && !PROTOCOL_CLAIMS.contains(&name.as_str()))
}

/// Claims of both sources.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Merged {
    pub claims: Claims,
    /// The names of those that UserInfo brought.
    pub from_user_info: BTreeSet<String>,
}

impl Merged {
    fn bring(&mut self, name: &str, value: Value) {
        self.claims.insert(name.to_owned(), value);
        self.from_user_info.insert(name.to_owned());
    }

    fn drop(&mut self, name: &str) {
        self.claims.remove(name);
        self.from_user_info.remove(name);
    }
}

/// The ID token's claims, and those of UserInfo that it does not have. The ID token is signed, so it wins;
/// what it says of the token or the authentication can't be added to.
pub(super) fn merge(id_token: &Map<String, Value>, user_info: &Map<String, Value>) -> Merged {
    let mut merged = Merged { claims: id_token.clone(), from_user_info: BTreeSet::new() };
    for (name, value) in user_info {
        if !PROTOCOL_CLAIMS.contains(&name.as_str()) && !id_token.contains_key(name) {
            merged.bring(name, value.clone());
        }
    }
    match (id_token.get(EMAIL), user_info.get(EMAIL)) {
        // The token's address with the other source's flag: only if that is about the same address.
        (Some(own), Some(other)) if !id_token.contains_key(EMAIL_VERIFIED) && own != other => {
            merged.drop(EMAIL_VERIFIED);
        }
        // The other source's address: its flag, whatever the token's flag was about.
        (None, Some(_)) => {
            if let Some(verified) = user_info.get(EMAIL_VERIFIED) {
                merged.bring(EMAIL_VERIFIED, verified.clone());
            }
        }
        _ => {}
    }
    merged
}

/// The kept claims of a session, made anew from UserInfo alone, where a refresh brought no ID token: what
/// UserInfo has of the needed ones replaces the old, what it brought before and has no more is gone, and the
/// others stay.
pub(super) fn renew(old: &Merged, needed: &BTreeSet<String>, user_info: &Map<String, Value>) -> Merged {
    let mut renewed = old.clone();
    let known = needed.union(&old.from_user_info).map(String::as_str);
    for name in known.filter(|name| !PROTOCOL_CLAIMS.contains(name)) {
        match user_info.get(name) {
            // The flag of an address that we are not told is no reason to change a signed one.
            Some(_) if name == EMAIL_VERIFIED && flag_is_of_another(old, user_info) => {}
            Some(value) => renewed.bring(name, value.clone()),
            None if old.from_user_info.contains(name) => renewed.drop(name),
            None => {}
        }
    }
    let other_address = renewed.claims.get(EMAIL) != old.claims.get(EMAIL);
    if other_address && !user_info.contains_key(EMAIL_VERIFIED) {
        renewed.drop(EMAIL_VERIFIED);
    }
    renewed
}

/// `email_verified` speaks about the `email` beside it: a flag must never vouch for the address of the other
/// source.
fn flag_is_of_another(old: &Merged, user_info: &Map<String, Value>) -> bool {
    let signed = old.claims.contains_key(EMAIL_VERIFIED) && !old.from_user_info.contains(EMAIL_VERIFIED);
    signed && !user_info.contains_key(EMAIL)
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
            // Whom the token calls unverified stays so: without a flag they would count as verified.
            (
                json!({"email_verified": false}),
                json!({"email": "b@x"}),
                json!({"email_verified": false, "email": "b@x"}),
            ),
            (
                json!({"email": "a@x", "email_verified": false}),
                json!({"email": "a@x", "email_verified": true}),
                json!({"email": "a@x", "email_verified": false}),
            ),
        ];
        for (id_token, user_info, merged) in rows {
            let outcome = merge(&map(id_token.clone()), &map(user_info.clone()));
            for name in &outcome.from_user_info {
                assert_eq!(outcome.claims[name], user_info[name], "{id_token} + {user_info}");
            }
            let others = outcome.claims.iter().filter(|(name, _)| !outcome.from_user_info.contains(*name));
            for (name, value) in others {
                assert_eq!(*value, id_token[name], "{id_token} + {user_info}");
            }
            assert_eq!(Value::from(outcome.claims), merged, "{id_token} + {user_info}");
        }
    }

    #[test]
    fn renewing_without_an_id_token() {
        let rows = [
            // old, of these from UserInfo, needed, UserInfo, renewed, of these from UserInfo
            (json!({"g": ["a"]}), "", "g", json!({"g": ["b"]}), json!({"g": ["b"]}), "g"),
            (json!({"g": ["a"]}), "g", "g", json!({"g": []}), json!({"g": []}), "g"),
            (json!({"g": ["a"]}), "g", "g", json!({}), json!({}), ""),
            (json!({"g": ["a"]}), "", "g", json!({}), json!({"g": ["a"]}), ""),
            (json!({}), "", "g", json!({"g": 1, "h": 2}), json!({"g": 1}), "g"),
            (json!({"g": 1, "h": 2}), "g h", "g", json!({"g": 3}), json!({"g": 3}), "g"),
            (json!({"acr": "mfa"}), "", "acr", json!({"acr": "phr"}), json!({"acr": "mfa"}), ""),
            // Another address without a flag has none, whoever set the old.
            (
                json!({"email": "a@x", "email_verified": true}),
                "",
                "email email_verified",
                json!({"email": "b@x"}),
                json!({"email": "b@x"}),
                "email",
            ),
            (
                json!({"email": "a@x", "email_verified": true}),
                "",
                "email email_verified",
                json!({"email": "a@x"}),
                json!({"email": "a@x", "email_verified": true}),
                "email",
            ),
            // A flag without its address does not change a signed one.
            (
                json!({"email": "a@x", "email_verified": false}),
                "",
                "email email_verified",
                json!({"email_verified": true}),
                json!({"email": "a@x", "email_verified": false}),
                "",
            ),
            (
                json!({"email": "a@x", "email_verified": true}),
                "email email_verified",
                "email email_verified",
                json!({"email": "a@x", "email_verified": false}),
                json!({"email": "a@x", "email_verified": false}),
                "email email_verified",
            ),
            // Where there was none, or an unsigned one, a flag without its address is about the one that we know.
            (
                json!({"email": "a@x"}),
                "",
                "email email_verified",
                json!({"email_verified": true}),
                json!({"email": "a@x", "email_verified": true}),
                "email_verified",
            ),
            (
                json!({"email": "a@x", "email_verified": true}),
                "email_verified",
                "email email_verified",
                json!({"email_verified": false}),
                json!({"email": "a@x", "email_verified": false}),
                "email_verified",
            ),
            // An address that comes with its flag brings it along, also in place of a signed one.
            (
                json!({"email": "a@x", "email_verified": true}),
                "",
                "email email_verified",
                json!({"email": "b@x", "email_verified": false}),
                json!({"email": "b@x", "email_verified": false}),
                "email email_verified",
            ),
        ];
        let set = |names: &str| names.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
        for (old, from, needed, user_info, renewed, from_then) in rows {
            let old = Merged { claims: map(old), from_user_info: set(from) };
            let outcome = renew(&old, &set(needed), &map(user_info.clone()));
            assert_eq!(Value::from(outcome.claims), renewed, "{old:?} + {user_info}");
            assert_eq!(outcome.from_user_info, set(from_then), "{old:?} + {user_info}");
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
            assert_eq!(needs_any(&needed(name)), lacking, "{name}");
        }
    }
}
