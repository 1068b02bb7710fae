//! The relying parties that the development provider knows.

use aws_lc_rs::error::Unspecified;
use url::{Host, Url};

use super::key::{random_token, same};
use crate::secret::Secret;

/// A registered relying party.
#[derive(Clone, Debug)]
pub struct Client {
    /// The `client_id`.
    pub id: String,
    /// The `client_secret`.
    pub secret: Secret<String>,
    /// Where answers may go.
    pub redirect_uris: RedirectUris,
}

/// Where a client may be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectUris {
    /// These, compared byte for byte (OpenID Connect Core section 3.1.2.1).
    Exactly(Vec<String>),
    /// Any http or https address on this machine: for a provider that serves whatever is being developed.
    AnyOnLoopback,
}

impl Client {
    /// A client with a fresh secret.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn with_fresh_secret(id: &str, redirect_uris: RedirectUris) -> Result<Self, super::KeyError> {
        let secret = random_token().map_err(|Unspecified| super::KeyError)?;
        Ok(Self { id: id.to_owned(), secret: Secret::new(secret), redirect_uris })
    }

    /// Whether `secret` is this client's; takes the same time wherever they differ.
    pub(super) fn has_secret(&self, secret: &str) -> bool {
        same(self.secret.expose(), secret)
    }

    /// Whether an answer may go to `address`.
    pub(super) fn may_be_answered_at(&self, address: &str) -> bool {
        match &self.redirect_uris {
            RedirectUris::Exactly(known) => known.iter().any(|one| one == address),
            RedirectUris::AnyOnLoopback => Url::parse(address).is_ok_and(|url| is_on_loopback(&url)),
        }
    }

    /// Whether a browser may be sent to `url` after a logout: to the origin that its logins come from.
    pub(super) fn may_get_back_to(&self, url: &Url) -> bool {
        match &self.redirect_uris {
            RedirectUris::Exactly(known) => {
                let origins = known.iter().filter_map(|one| Url::parse(one).ok()).map(|one| one.origin());
                origins.into_iter().any(|origin| origin.is_tuple() && origin == url.origin())
            }
            RedirectUris::AnyOnLoopback => is_on_loopback(url),
        }
    }
}

fn is_on_loopback(url: &Url) -> bool {
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let plain = url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    here && plain && matches!(url.scheme(), "http" | "https")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_only_where_they_may() {
        let client = |redirect_uris| Client::with_fresh_secret("c", redirect_uris).unwrap();
        let exactly = client(RedirectUris::Exactly(vec!["https://localhost:8443/cb".to_owned()]));
        let any = client(RedirectUris::AnyOnLoopback);
        for (address, by_exactly, by_any) in [
            ("https://localhost:8443/cb", true, true),
            ("https://localhost:8443/cb?x", false, true),
            ("http://127.0.0.1:3000/a/b", false, true),
            ("http://[::1]/", false, true),
            ("https://localhost.evil.example/cb", false, false),
            ("https://localhost@evil.example/cb", false, false),
            ("https://me:pw@localhost/cb", false, false),
            ("https://localhost/cb#f", false, false),
            ("javascript://localhost/%0aalert(1)", false, false),
            ("/cb", false, false),
            ("", false, false),
        ] {
            assert_eq!(exactly.may_be_answered_at(address), by_exactly, "{address}");
            assert_eq!(any.may_be_answered_at(address), by_any, "{address}");
        }
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let client = Client::with_fresh_secret("c", RedirectUris::AnyOnLoopback).unwrap();
        assert!(!format!("{client:?}").contains(client.secret.expose().as_str()));
        assert!(
            client.has_secret(client.secret.expose()) && !client.has_secret("") && !client.has_secret("x")
        );
    }
}
