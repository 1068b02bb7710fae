//! Refresh tokens as strict providers have them: each is good once, and whoever uses one again ends all that came from
//! its login (RFC 9700 section 4.14.2).

use std::collections::HashMap;

use serde_json::json;

use super::behaviour::{Behaviour, Reply};
use super::endpoints::{authenticated, issue};
use super::keys::random;
use super::{Call, Grant, Shared, find};

/// Every refresh token that was ever given out, by the login that it came from.
#[derive(Debug, Default)]
pub struct Families {
    of_token: HashMap<String, usize>,
    all: Vec<Family>,
}

#[derive(Debug)]
struct Family {
    grant: Grant,
    /// The token that is good; none when the family is over.
    good: Option<String>,
}

/// The first token of a login.
pub fn begin(shared: &Shared, grant: &Grant) -> String {
    let mut families = shared.refresh.lock().unwrap();
    let number = families.all.len();
    families.all.push(Family { grant: grant.clone(), good: None });
    families.give(shared, number)
}

impl Families {
    fn give(&mut self, shared: &Shared, number: usize) -> String {
        let token = format!("refresh-{}", random());
        shared.secrets.add(&token);
        self.of_token.insert(token.clone(), number);
        self.all[number].good = Some(token.clone());
        token
    }
}

/// The refresh grant (RFC 6749 section 6).
pub fn token(shared: &Shared, call: &Call) -> Reply {
    let behaviour = shared.behaviour.lock().unwrap().clone();
    if !authenticated(call, &behaviour) {
        shared.wrong("refresh: the client's authentication is wrong");
        return Reply::json(401, &json!({ "error": "invalid_client" }));
    }
    let invalid = Reply::json(400, &json!({ "error": "invalid_grant" }));
    let presented = find(&call.form, "refresh_token").unwrap_or_default();
    let mut families = shared.refresh.lock().unwrap();
    let Some(number) = families.of_token.get(presented).copied() else { return invalid };
    let family = &mut families.all[number];
    if family.good.as_deref() != Some(presented) {
        // Used before: somebody has stolen it, or is careless.
        family.good = None;
        return invalid;
    }
    let mut response = issue(shared, &behaviour, &family.grant.clone(), |claims| {
        claims.as_object_mut().unwrap().remove("nonce");
        (behaviour.refresh_claims)(claims);
    });
    if behaviour.rotates {
        response["refresh_token"] = json!(families.give(shared, number));
    }
    (behaviour.refresh_response)(&mut response);
    Reply::json(200, &response)
}

/// RFC 7009: 200 for every token, known or not.
pub fn revoke(shared: &Shared, behaviour: &Behaviour, call: &Call) -> Reply {
    if !authenticated(call, behaviour) {
        shared.wrong("revocation: the client's authentication is wrong");
        return Reply::json(401, &json!({ "error": "invalid_client" }));
    }
    let mut families = shared.refresh.lock().unwrap();
    let known = find(&call.form, "token").and_then(|token| families.of_token.get(token).copied());
    if let Some(number) = known {
        families.all[number].good = None;
    }
    Reply::json(200, &json!({}))
}
