//! The last step: strips, stamps and sends what is allowed, and cleans the answer.

use std::rc::Rc;

use http::header::{CACHE_CONTROL, VARY};
use http::{HeaderMap, HeaderValue, Request, Response};

use super::admit::{Allowed, Arrived};
use super::callers::Presented;
use super::entry::Entry;
use super::login::append_cookies;
use super::reject::Refusal;
use super::service::Service;
use super::{Entrance, Worker};
use crate::proxy::{self, CookieHeader, Terms};
use crate::server::Connection;
use crate::session::Stripped;
use crate::web::Body;

impl Worker {
    /// Forwards a request that the rules allow.
    pub(super) async fn forward(
        &self,
        arrived: &Arrived<'_>,
        request: &mut Request<Body>,
        connection: &Rc<Connection>,
        allowed: Allowed,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        let Allowed { permit, presented, public, at: now } = allowed;
        entry.accept();
        let (known, cookie, outdated) = match presented {
            Some(Presented { known, cookie, outdated }) => (Some(known), cookie, outdated),
            None => (None, service.own_cookies.strip(request.headers()).into(), false),
        };
        let session = known.as_ref().zip(service.relying_party.as_ref());
        // A newest revision is on its way to the browser already.
        let mut renewed = session
            .filter(|_| !outdated)
            .map(|(known, party)| known.renewed(party, request.headers(), now))
            .unwrap_or_default();
        // What everybody may see does not end with anybody's session.
        let bound = session.filter(|_| !public);
        let tls = arrived.entrance != Entrance::PublicOnly;
        let told = arrived.recollection.told(entry, arrived, tls);
        let call = entry.call;
        let inform = |status, headers: &HeaderMap| connection.inform(call, status, headers);
        let terms = Terms {
            client: &told.fields,
            request_id: entry.id.as_str(),
            identity: known.as_deref().map(|known| &known.identity),
            cookie,
            inform: connection.takes_informational().then_some(&inform),
            private: !public,
            observer: Some(entry.observer()),
            ends_at: bound.map(|(known, party)| {
                tokio::time::Instant::from_std(entry.started)
                    + party.sessions.expires_at(&known.session).since(now)
            }),
            lifeline: bound.map(|(known, party)| arrived.local.streams.lifeline(known, party)),
        };
        let forwarder = &arrived.local.forwarder;
        let mut response =
            forwarder.forward(request, permit, &arrived.target, terms).await.map_err(|error| {
                match (connection.body_violation(), error) {
                    (Some(violation), _) => Refusal::Malformed(violation),
                    (None, error @ proxy::Error::SessionEnded) => {
                        Refusal::SignIn { login: service.login_url("/"), absent: error.to_string() }
                    }
                    (None, error) => Refusal::Upstream(error),
                }
            })?;
        entry.answered();
        let brings_cookies = !renewed.is_empty() || !entry.cookies.is_empty();
        if brings_cookies && session.is_some_and(|(known, party)| known.is_outlived(party)) {
            renewed.clear();
            entry.cookies.clear();
        }
        if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            entry.tunnels(connection.tunnel());
            return Ok(response);
        }
        if public && session_matters(service) {
            response.headers_mut().append(VARY, HeaderValue::from_static("Cookie"));
        }
        if !renewed.is_empty() || !entry.cookies.is_empty() {
            append_cookies(response.headers_mut(), renewed);
            keep_private(response.headers_mut());
        }
        Ok(response)
    }
}

/// Whether the application is told who asks, also where everybody may. A shared cache must then not show one
/// person's page to another (RFC 9110 section 12.5.5).
fn session_matters(service: &Service) -> bool {
    service.relying_party.is_some() && !service.mappings.is_empty()
}

/// Makes an answer that sets a cookie stay in the browser that it is for (RFC 9111 section 5.2.2.7). What else
/// the application says about caching stays.
fn keep_private(headers: &mut HeaderMap) {
    // First, where no quote of the application's that is never closed can swallow it.
    let mut directives = vec!["private".to_owned()];
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in directives_of(value.to_str().unwrap_or_default()) {
            // With field names behind it, `private` is about those fields only.
            if directive.eq_ignore_ascii_case("private") || directive.eq_ignore_ascii_case("no-store") {
                return;
            }
            let name = directive.split('=').next().unwrap_or_default().to_ascii_lowercase();
            if !matches!(name.as_str(), "" | "public" | "s-maxage" | "private") {
                directives.push(directive.to_owned());
            }
        }
    }
    if let Ok(value) = HeaderValue::try_from(directives.join(", ")) {
        headers.insert(CACHE_CONTROL, value);
    }
}

/// Cut at the commas that are not within quotes.
fn directives_of(value: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let cut = move |character| {
        quoted ^= character == '"' && !escaped;
        escaped = quoted && character == '\\' && !escaped;
        character == ',' && !quoted
    };
    value.split(cut).map(str::trim)
}

impl From<Stripped> for CookieHeader {
    fn from(stripped: Stripped) -> Self {
        match stripped {
            Stripped::Unchanged => CookieHeader::Unchanged,
            Stripped::Replaced(value) => CookieHeader::Replace(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_our_cookie_is_private_and_keeps_the_rest() {
        for (sent, expected) in [
            (&[][..], "private"),
            (&["public, max-age=60"], "private, max-age=60"),
            (&["no-cache", "must-revalidate"], "private, no-cache, must-revalidate"),
            (&["s-maxage=10, no-transform"], "private, no-transform"),
            (&["no-store"], "no-store"),
            (&["max-age=5, Private"], "max-age=5, Private"),
            (&["private=\"x, y\", max-age=5"], "private, max-age=5"),
            (&["no-cache=\"x\\\", private, y\""], "private, no-cache=\"x\\\", private, y\""),
            (&["no-cache=\"x, y"], "private, no-cache=\"x, y"),
            (&["no-cache=\"private, x\""], "private, no-cache=\"private, x\""),
        ] {
            let mut headers: HeaderMap =
                sent.iter().map(|value| (CACHE_CONTROL, HeaderValue::from_static(value))).collect();
            keep_private(&mut headers);
            assert_eq!(headers[CACHE_CONTROL], expected, "{sent:?}");
        }
    }
}
