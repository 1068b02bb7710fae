//! "Test connection": everything about a provider that can be tried without a person, each finding with what
//! to do about it.

use std::time::{Duration, SystemTime};

use http::header::DATE;
use http::{Request, StatusCode};
use url::Url;

use super::config::ClientAuthentication;
use super::discovery::{self, Metadata, Problem};
use super::error::{Error, Refusal};
use super::flow;
use super::jwks::KeySet;
use super::keys;
use super::login::Begin;
use super::provider::Provider;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do; empty if there is nothing to do.
    pub fix: String,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Logins may work; worth a look.
    Warning,
    /// Logins will fail.
    Error,
}

/// A code that no provider ever issued.
const BOGUS_CODE: &str = "portcullis-connection-test";
/// A verifier of the shape that RFC 7636 section 4.1 asks for.
const BOGUS_VERIFIER: &str = "portcullis-connection-test-0000000000000000000";
/// The scope that asks for a refresh token (OIDC Core section 11).
const OFFLINE_ACCESS: &str = "offline_access";
/// How exact a `Date` header is.
const DATE_PRECISION: Duration = Duration::from_secs(2);

impl Provider {
    /// Tries the connection to the provider: discovery, issuer, endpoints, keys, algorithms, PKCE, client
    /// authentication, credentials, redirect URI and clock. Takes at most about 25 s.
    pub async fn diagnose(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let metadata = match discovery::fetch(&self.outbound, &self.config, &self.issuer).await {
            Ok(metadata) => metadata,
            Err(problem) => return vec![discovery_finding(&problem)],
        };
        findings.push(ok(format!("discovery answers, and its issuer is {}", self.config.issuer)));
        findings.extend(self.clock_finding().await);
        findings.push(self.keys_finding(&metadata).await);
        findings.push(pkce_finding(&metadata));
        findings.extend(self.offline_finding(&metadata));
        findings.extend(logout_findings(&metadata));
        findings.push(self.authentication_finding(&metadata));
        findings.push(self.credentials_finding(&metadata).await);
        findings.extend(self.redirect_finding(&metadata).await);
        findings
    }

    async fn clock_finding(&self) -> Option<Finding> {
        let answer = self.outbound.get(&discovery::address(&self.issuer)).await.ok()?;
        let date = httpdate::parse_http_date(answer.headers().get(DATE)?.to_str().ok()?).ok()?;
        let theirs = date.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        let skew = Duration::from_secs(self.clock.now().0.abs_diff(theirs));
        let allowed = self.config.clock_skew;
        let what = format!("the provider's clock and this machine's differ by {} s", skew.as_secs());
        Some(match skew {
            skew if skew <= allowed.min(Duration::from_secs(10)) + DATE_PRECISION => ok(what),
            skew if skew <= allowed => warning(what, "let both machines get their time by NTP"),
            _ => error(
                format!("{what}, allowed are {} s (OIDCClockSkew)", allowed.as_secs()),
                "let both machines get their time by NTP: tokens will seem expired, or from the future",
            ),
        })
    }

    async fn keys_finding(&self, metadata: &Metadata) -> Finding {
        match keys::download(&self.outbound, &metadata.jwks_uri).await {
            Err(reason) => {
                error(format!("the provider's keys can't be had: {reason}"), "repair it at the provider")
            }
            Ok(keys) => self.algorithms_finding(&keys, metadata),
        }
    }

    fn algorithms_finding(&self, keys: &KeySet, metadata: &Metadata) -> Finding {
        let shared_key = |algorithm: super::SigningAlgorithm| algorithm.is_symmetric();
        let usable: Vec<_> = metadata
            .signing_algorithms
            .iter()
            .filter(|algorithm| shared_key(**algorithm) || keys.supports(**algorithm))
            .map(|algorithm| algorithm.name())
            .collect();
        match usable.is_empty() {
            false => {
                ok(format!("{} usable keys; ID tokens may be signed with {}", keys.len(), usable.join(", ")))
            }
            true => error(
                "no published key fits an accepted signature algorithm".to_owned(),
                "change OIDCSigningAlgorithms, or how the provider signs for this client",
            ),
        }
    }

    /// Refresh tokens are asked for by a scope, which some providers only say they do not have by silence.
    fn offline_finding(&self, metadata: &Metadata) -> Option<Finding> {
        if !self.config.scopes.iter().any(|scope| scope == OFFLINE_ACCESS) {
            return None;
        }
        Some(match &metadata.scopes {
            Some(offered) if offered.iter().any(|scope| scope == OFFLINE_ACCESS) => {
                ok("sessions can be refreshed: the provider offers the scope offline_access".to_owned())
            }
            None => ok("offline_access is asked for; the provider does not list its scopes".to_owned()),
            Some(_) => warning(
                "OIDCScopes has offline_access, and the provider does not list it: sessions may not be refreshed"
                    .to_owned(),
                "allow this client refresh tokens at the provider, or take the scope away where the provider has \
                 another way (Google: OIDCAuthorizationParameters with access_type: offline)",
            ),
        })
    }

    fn authentication_finding(&self, metadata: &Metadata) -> Finding {
        let method = match flow::authentication(&self.config, metadata) {
            ClientAuthentication::Post => "client_secret_post",
            ClientAuthentication::Auto | ClientAuthentication::Basic => "client_secret_basic",
        };
        match &metadata.authentication_methods {
            Some(offered) if !offered.iter().any(|each| each == method) => warning(
                format!("the provider does not offer {method}, only {}", offered.join(", ")),
                "set OIDCClientAuthentication to what it offers; other methods are not supported",
            ),
            _ => ok(format!("the client authenticates by {method}")),
        }
    }

    /// A code that never was: a provider that knows the client says `invalid_grant`, any other does not.
    async fn credentials_finding(&self, metadata: &Metadata) -> Finding {
        let secret = self.credentials.secret();
        let caller = self.caller(metadata, secret.as_deref());
        match caller.exchange(BOGUS_CODE.to_owned(), BOGUS_VERIFIER.to_owned()).await {
            Err(Error::Refused(Refusal::Code { .. })) => {
                ok("the token endpoint accepts OIDCClientID and OIDCClientSecret".to_owned())
            }
            Err(Error::TokenEndpoint(reason)) if reason.contains("invalid_client") => {
                error("the token endpoint refuses the client".to_owned(), &reason)
            }
            Err(other) => warning(
                format!("the credentials could not be tried: {other}"),
                "try a login; if it fails, look for the same text in the log",
            ),
            Ok(_) => error(
                "the token endpoint gave tokens for a code that never was".to_owned(),
                "do not use this provider: anybody can log in as anybody",
            ),
        }
    }

    /// Most providers say at once when they do not know the redirect URI, and show a login page otherwise.
    async fn redirect_finding(&self, metadata: &Metadata) -> Option<Finding> {
        let begin = Begin { state: BOGUS_CODE.to_owned(), ..Begin::default() };
        let (url, _) = flow::authorization(&self.config, metadata, &begin).ok()?;
        let callback = &self.config.redirect_uri;
        match self.first_answer(&url).await? {
            status if status.is_client_error() => Some(warning(
                format!("the authorization endpoint refuses our request for the callback {callback}"),
                "register exactly this redirect URI for this client at the provider",
            )),
            status if status.is_server_error() => Some(warning(
                format!("the authorization endpoint answers {}", status.as_u16()),
                "look at the provider's own log",
            )),
            _ => Some(ok(format!("the authorization endpoint takes the callback {callback}"))),
        }
    }

    /// A redirect is an answer here: to the login page.
    async fn first_answer(&self, url: &Url) -> Option<StatusCode> {
        let request = Request::get(url.as_str()).body(Vec::new()).ok()?;
        match self.outbound.send(request).await {
            Ok(answer) => Some(answer.status()),
            Err(crate::web::outbound::Error::Redirect { .. }) => Some(StatusCode::FOUND),
            Err(_) => None,
        }
    }
}

fn discovery_finding(problem: &Problem) -> Finding {
    let fix = match problem {
        Problem::Unreachable(reason) if reason.contains("authority that is not trusted") => {
            "set OIDCProviderCertificateAuthority to the CA that signed the provider's certificate"
        }
        Problem::Unreachable(_) => {
            "check OIDCProviderURL, DNS, firewalls and HTTPS_PROXY between here and the provider"
        }
        Problem::Unusable(_) => "correct OIDCProviderURL, or what the provider says about itself",
    };
    error(problem.to_string(), fix)
}

fn pkce_finding(metadata: &Metadata) -> Finding {
    match &metadata.challenge_methods {
        Some(methods) if methods.iter().any(|method| method == "S256") => {
            ok("PKCE S256 is supported".to_owned())
        }
        Some(methods) => warning(
            format!(
                "the provider announces PKCE with {} only; S256 is sent all the same",
                methods.join(", ")
            ),
            "turn PKCE S256 on for this client",
        ),
        None => ok("the provider does not say whether it supports PKCE; S256 is sent".to_owned()),
    }
}

/// What a logout here can do at the provider, and the other way round. Nothing of it is needed.
fn logout_findings(metadata: &Metadata) -> Vec<Finding> {
    let offers = |offered: bool, yes: &str, no: &str| ok(if offered { yes } else { no }.to_owned());
    let mut findings = vec![
        offers(
            metadata.end_session_endpoint.is_some(),
            "a logout here is passed on to the provider (RP-initiated logout)",
            "the provider offers no RP-initiated logout: after a logout here its own session goes on",
        ),
        offers(
            metadata.revocation_endpoint.is_some(),
            "refresh tokens are revoked at a logout (RFC 7009)",
            "the provider offers no revocation (RFC 7009): refresh tokens end by themselves",
        ),
        offers(
            metadata.back_channel_logout,
            "a logout at the provider can end sessions here (back-channel logout)",
            "the provider announces no back-channel logout: a logout there is noticed at the next refresh",
        ),
    ];
    if metadata.front_channel_logout {
        findings
            .push(ok("the provider can also use front-channel logout (OIDCFrontChannelLogout)".to_owned()));
    }
    let fix = "correct what the provider says about itself; until then the endpoint is not used";
    findings.extend(metadata.ignored.iter().map(|why| warning(why.clone(), fix)));
    findings
}

fn ok(what: String) -> Finding {
    Finding { level: Level::Ok, what, fix: String::new() }
}

fn warning(what: String, fix: &str) -> Finding {
    Finding { level: Level::Warning, what, fix: fix.to_owned() }
}

fn error(what: String, fix: &str) -> Finding {
    Finding { level: Level::Error, what, fix: fix.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_that_is_not_found_is_looked_for_in_the_right_place() {
        let untrusted = "its certificate is signed by an authority that is not trusted".to_owned();
        for (problem, fix) in [
            (Problem::Unreachable(untrusted), "OIDCProviderCertificateAuthority"),
            (Problem::Unreachable("connection refused".to_owned()), "HTTPS_PROXY"),
            (Problem::Unusable("issuer mismatch".to_owned()), "correct OIDCProviderURL"),
        ] {
            let finding = discovery_finding(&problem);
            assert_eq!(finding.level, Level::Error);
            assert!(finding.fix.contains(fix), "{finding:?}");
        }
    }
}
