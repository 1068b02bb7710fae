//! Refresh tokens: good once, and gone with their grant when one is seen twice (RFC 9700 section 4.14.2).
//!
//! A refresh token is the name of its grant and a secret. A known name with another secret is a token that was
//! used before, so nothing has to be remembered of those.

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::client::Client;
use super::idp::{DevIdp, Grant, State};
use super::key;
use super::memory::Memory;
use super::parameters::Parameters;
use super::token::{Person, Refusal};
use crate::clock::UnixTime;

/// Begins a grant: its name, and its first refresh token.
pub(super) fn begin(
    grants: &mut Memory<Grant>,
    person: Person<'_>,
    access_token: &str,
    now: UnixTime,
) -> Result<(String, String), Refusal> {
    let secret = key::random_token()?;
    let grant = Grant {
        client_id: person.client_id.to_owned(),
        scopes: person.scopes.to_vec(),
        login: person.login.clone(),
        secret: secret.clone(),
        access_token: access_token.to_owned(),
    };
    let name = grants.keep(grant, now)?;
    let refresh_token = format!("{name}.{secret}");
    Ok((name, refresh_token))
}

impl DevIdp {
    /// Exchanges a refresh token (RFC 6749 section 6) for new tokens, among them its successor. The scopes are
    /// those of the grant.
    pub(super) fn refresh(&self, sent: &Parameters, client: &Client) -> Result<Value, Refusal> {
        let presented = sent.get("refresh_token");
        let presented = presented.ok_or(Refusal::InvalidRequest("refresh_token is missing"))?;
        let unknown = || Refusal::InvalidGrant("the refresh token is unknown, too old, or another client's");
        let (name, secret) = presented.split_once('.').ok_or_else(unknown)?;
        let now = self.clock.now();
        let mut state = self.state();
        let state = &mut *state;
        let grant = state.grants.find(name, now).filter(|grant| grant.client_id == client.id);
        let grant = grant.ok_or_else(unknown)?;
        if !key::same(&grant.secret, secret) {
            // Either this client or a thief has used it before, and nobody can tell which.
            state.end_grant(name, now);
            return Err(Refusal::InvalidGrant(
                "the refresh token has been used; what it was given for is over",
            ));
        }
        let person = Person { client_id: &grant.client_id, scopes: &grant.scopes, login: &grant.login };
        let (access_token, mut tokens) = self.issue(&mut state.tokens, person, None)?;
        grant.secret = key::random_token()?;
        grant.access_token = access_token;
        tokens.insert("refresh_token".to_owned(), json!(format!("{name}.{}", grant.secret)));
        Ok(Value::Object(tokens))
    }

    /// RFC 7009: ends what a token was given for. A token that is none is as good as ended.
    pub(super) fn revoke(&self, sent: &[u8], headers: &HeaderMap) -> Answer {
        match self.end_token(sent, headers) {
            Ok(()) => answer::text(StatusCode::OK, ""),
            Err(refusal) => refusal.answer(),
        }
    }

    fn end_token(&self, sent: &[u8], headers: &HeaderMap) -> Result<(), Refusal> {
        let sent = Parameters::parse(sent).map_err(|_| Refusal::InvalidRequest("a parameter came twice"))?;
        let client = self.authenticate(&sent, headers)?;
        let token = sent.get("token").ok_or(Refusal::InvalidRequest("token is missing"))?;
        let now = self.clock.now();
        let mut state = self.state();
        match token.split_once('.') {
            Some((name, _)) => {
                if state.grants.find(name, now).is_some_and(|grant| grant.client_id == client.id) {
                    state.end_grant(name, now);
                }
            }
            None => state.tokens.forget(token),
        }
        Ok(())
    }
}

impl State {
    /// Ends a grant, and the access token that came with it last.
    pub(super) fn end_grant(&mut self, name: &str, now: UnixTime) {
        if let Some(grant) = self.grants.find(name, now) {
            self.tokens.forget(&grant.access_token);
        }
        self.grants.forget(name);
    }
}
