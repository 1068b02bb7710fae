//! One service as a client of its identity provider: everything whose key begins with `OIDC`.

use std::collections::BTreeSet;

use url::Url;

use super::RESERVED_PATHS;
use super::host::Host;
use super::problem::Problem;
use super::raw_service::{
    AuthorizationType, ClientAuthentication, Service as Raw, SigningAlgorithm, UserInfo,
};
use super::resolve::Resolver;
use super::schema;
use crate::oidc;
use crate::path::NormalPath;
use crate::secret::{Secret, Source};

/// The callback, whole.
pub(super) struct Callback {
    pub url: Url,
    pub host: Host,
}

/// Parameters of the authorization request that only the protocol may set. Every `code_challenge*` is too.
const PROTOCOL_PARAMETERS: [&str; 9] = [
    "client_id",
    "nonce",
    "redirect_uri",
    "request",
    "request_uri",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

/// The keys of a service that mean nothing without a login.
pub(super) fn keys_of_login() -> impl Iterator<Item = &'static str> {
    let service = schema::properties(schema::parsed())
        .and_then(|top| top.get("services")?.get("items")?.as_object())
        .and_then(schema::properties);
    let keys = service.into_iter().flat_map(|keys| keys.keys()).map(String::as_str);
    keys.filter(|key| {
        key.starts_with("OIDC") && *key != "OIDCCallbackURL" || *key == "claimsToHTTPHeaderMappings"
    })
}

impl Resolver<'_> {
    /// The provider's configuration. Whatever is missing or wrong has been reported if there is none.
    pub fn provider(
        &mut self,
        at: &str,
        raw: &Raw,
        callback: Option<&Callback>,
        needed_claims: BTreeSet<String>,
    ) -> Option<oidc::Config> {
        let issuer = self.issuer(at, raw);
        if raw.oidc_client_id.is_none() {
            self.needed_for_login(at, "OIDCClientID", "the client id that the identity provider gave");
        }
        let client_secret = self.client_secret(at, raw);
        let scopes = self.scopes(at, raw);
        let authorization_parameters = self.authorization_parameters(at, raw);
        let certificate_authority = self.pem(
            at,
            ("OIDCProviderCertificateAuthority", raw.oidc_provider_certificate_authority.as_deref()),
            ("OIDCProviderCertificateAuthorityFile", raw.oidc_provider_certificate_authority_file.as_deref()),
        );
        let signing_algorithms = self.signing_algorithms(at, raw);
        Some(oidc::Config {
            issuer: issuer?,
            client_id: raw.oidc_client_id.clone()?,
            client_secret: Some(client_secret?),
            redirect_uri: callback?.url.clone(),
            scopes,
            client_authentication: match raw.oidc_client_authentication {
                ClientAuthentication::Auto => oidc::ClientAuthentication::Auto,
                ClientAuthentication::Basic => oidc::ClientAuthentication::Basic,
                ClientAuthentication::Post => oidc::ClientAuthentication::Post,
            },
            signing_algorithms,
            clock_skew: raw.oidc_clock_skew.0,
            user_info: match raw.oidc_user_info {
                UserInfo::Auto => oidc::UserInfoMode::Auto,
                UserInfo::Always => oidc::UserInfoMode::Always,
                UserInfo::Never => oidc::UserInfoMode::Never,
            },
            authorization_parameters,
            certificate_authority,
            needed_claims,
        })
    }

    /// The callback URL, its path filled in. A service without a login may have one too: then it only tells where
    /// users see the application.
    pub fn callback(&mut self, at: &str, raw: &Raw) -> Option<Callback> {
        let path = format!("{at}.OIDCCallbackURL");
        let Some(text) = &raw.oidc_callback_url else {
            if raw.authorization_type == AuthorizationType::Oidc {
                self.needed_for_login(
                    at,
                    "OIDCCallbackURL",
                    "the https URL at which users see the application",
                );
            }
            return None;
        };
        let mut url = self.url(&path, text, "https://app.example.com")?;
        if url.scheme() != "https" {
            self.mistake(&path, Problem::CallbackNotHttps);
            return None;
        }
        self.no_query(&path, &url)?;
        if url.path() == "/" {
            url.set_path(super::CALLBACK_PATH);
        } else if RESERVED_PATHS.contains(&url.path()) {
            self.mistake(&path, Problem::CallbackReserved);
            return None;
        } else if !is_normal(text, &url, raw) {
            self.mistake(&path, Problem::CallbackPath);
            return None;
        }
        let shown = self.shown(&path);
        match url.host_str().map(Host::parse)? {
            Ok(host) => Some(Callback { url, host }),
            Err(error) => {
                self.mistake(&path, Problem::BadHost { shown, error });
                None
            }
        }
    }

    /// Reports a key that is missing, unless it is unknown whether there is a login at all.
    fn needed_for_login(&mut self, at: &str, key: &str, what: &str) {
        if !self.origins.is_pruned(&format!("{at}.authorizationType")) {
            self.missing(&format!("{at}.{key}"), what);
        }
    }

    /// An absolute http(s) URL without credentials.
    pub fn url(&mut self, path: &str, text: &str, example: &'static str) -> Option<Url> {
        let shown = self.shown(path);
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "https" | "http"));
        // The parser repairs `https:/x` and `https:\\x`; what is registered elsewhere must be spelled right.
        let spelled =
            text.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/') && !text.contains('\\'));
        let Some(url) = url.filter(|_| spelled) else {
            self.mistake(path, Problem::BadUrl { shown, expected: "a URL", example });
            return None;
        };
        if !url.username().is_empty() || url.password().is_some() {
            let advice = "leave out everything before the @";
            let shown = super::Shown::secret();
            self.mistake(path, Problem::UrlPart { shown, part: "credentials in it", advice });
            return None;
        }
        Some(url)
    }

    fn no_query(&mut self, path: &str, url: &Url) -> Option<()> {
        let part = match (url.query(), url.fragment()) {
            (None, None) => return Some(()),
            (Some(_), _) => "a query",
            (None, Some(_)) => "a fragment",
        };
        let shown = self.shown(path);
        self.mistake(path, Problem::UrlPart { shown, part, advice: "leave it out" });
        None
    }

    /// The issuer, byte for byte as written: it is compared so (OIDC Discovery section 4.3).
    fn issuer(&mut self, at: &str, raw: &Raw) -> Option<String> {
        let path = format!("{at}.OIDCProviderURL");
        let Some(text) = &raw.oidc_provider_url else {
            self.needed_for_login(at, "OIDCProviderURL", "the issuer of the identity provider");
            return None;
        };
        let url = self.url(&path, text, "https://login.example.com/realm")?;
        self.no_query(&path, &url)?;
        if url.path().contains("/.well-known/") {
            self.mistake(&path, Problem::IssuerIsDiscovery);
            return None;
        }
        if url.scheme() == "http" {
            self.plain_issuer(&path, &url)?;
        }
        Some(text.clone())
    }

    /// Plain http is for development on one machine. Whether a name resolves to loopback is seen when it is used.
    fn plain_issuer(&mut self, path: &str, url: &Url) -> Option<()> {
        let on_loopback = match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(_)) => true,
            None => false,
        };
        if !on_loopback {
            self.mistake(path, Problem::PlainIssuer);
            return None;
        }
        self.warn(
            path,
            "plain http: works only if the identity provider is on loopback of this machine; for development",
        );
        Some(())
    }

    /// Portcullis is a confidential client: there must be a secret.
    fn client_secret(&mut self, at: &str, raw: &Raw) -> Option<Source> {
        let (inline, file) = ("OIDCClientSecret", "OIDCClientSecretFile");
        let file_path = format!("{at}.{file}");
        match (&raw.oidc_client_secret, &raw.oidc_client_secret_file) {
            (Some(_), Some(_)) => {
                self.mistake(&file_path, Problem::Exclusive { this: file, other: inline });
                None
            }
            (Some(secret), None) => Some(Source::Inline(Secret::new(secret.0.expose().clone()))),
            (None, Some(named)) => self.file(&file_path, named, false).map(Source::File),
            (None, None) => {
                if !self.origins.is_pruned(&file_path) {
                    self.needed_for_login(
                        at,
                        inline,
                        "the client secret that the identity provider gave, or OIDCClientSecretFile",
                    );
                }
                None
            }
        }
    }

    /// `openid` first, then the others, each once.
    fn scopes(&mut self, at: &str, raw: &Raw) -> Vec<String> {
        let mut scopes = vec!["openid".to_owned()];
        for (i, scope) in raw.oidc_scopes.iter().enumerate() {
            // RFC 6749 section 3.3.
            let is_scope = scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
            if !is_scope {
                let path = format!("{at}.OIDCScopes[{i}]");
                let shown = self.shown(&path);
                self.mistake(&path, Problem::BadScope { shown });
            } else if !scopes.contains(scope) {
                scopes.push(scope.clone());
            }
        }
        scopes
    }

    fn authorization_parameters(&mut self, at: &str, raw: &Raw) -> Vec<(String, String)> {
        for (name, value) in &raw.oidc_authorization_parameters {
            let path = format!("{at}.OIDCAuthorizationParameters.{name}");
            if PROTOCOL_PARAMETERS.contains(&name.as_str()) || name.starts_with("code_challenge") {
                self.mistake(&path, Problem::ProtocolParameter);
            } else if name == "max_age" && value.parse::<u32>().is_err() {
                let shown = self.shown(&path);
                self.mistake(&path, Problem::BadMaxAge { shown });
            }
        }
        raw.oidc_authorization_parameters.clone().into_iter().collect()
    }

    fn signing_algorithms(&mut self, at: &str, raw: &Raw) -> Option<Vec<oidc::SigningAlgorithm>> {
        let path = format!("{at}.OIDCSigningAlgorithms");
        let listed = raw.oidc_signing_algorithms.as_ref()?;
        if listed.is_empty() && !self.origins.is_incomplete(&path) {
            self.mistake(&path, Problem::Empty { by_variable: false });
        }
        let mut algorithms = Vec::new();
        for algorithm in listed {
            let algorithm = of_oidc(*algorithm);
            if !algorithms.contains(&algorithm) {
                algorithms.push(algorithm);
            }
        }
        let symmetric = [SigningAlgorithm::Hs256, SigningAlgorithm::Hs384, SigningAlgorithm::Hs512];
        if listed.iter().any(|algorithm| symmetric.contains(algorithm)) {
            self.warn(&path, "accepts HS256-512: whoever has the client secret can then make ID tokens; prefer an algorithm with a public key");
        }
        Some(algorithms)
    }
}

fn of_oidc(algorithm: SigningAlgorithm) -> oidc::SigningAlgorithm {
    match algorithm {
        SigningAlgorithm::Rs256 => oidc::SigningAlgorithm::Rs256,
        SigningAlgorithm::Rs384 => oidc::SigningAlgorithm::Rs384,
        SigningAlgorithm::Rs512 => oidc::SigningAlgorithm::Rs512,
        SigningAlgorithm::Ps256 => oidc::SigningAlgorithm::Ps256,
        SigningAlgorithm::Ps384 => oidc::SigningAlgorithm::Ps384,
        SigningAlgorithm::Ps512 => oidc::SigningAlgorithm::Ps512,
        SigningAlgorithm::Es256 => oidc::SigningAlgorithm::Es256,
        SigningAlgorithm::Es384 => oidc::SigningAlgorithm::Es384,
        SigningAlgorithm::EdDsa => oidc::SigningAlgorithm::EdDsa,
        SigningAlgorithm::Hs256 => oidc::SigningAlgorithm::Hs256,
        SigningAlgorithm::Hs384 => oidc::SigningAlgorithm::Hs384,
        SigningAlgorithm::Hs512 => oidc::SigningAlgorithm::Hs512,
    }
}

/// Whether the path of the callback is in the form in which requests for it are compared.
fn is_normal(text: &str, url: &Url, raw: &Raw) -> bool {
    let after_scheme = text.split_once("://").map_or("", |(_, rest)| rest);
    let written = after_scheme.find('/').and_then(|start| after_scheme.get(start..)).unwrap_or("/");
    let options = super::service::path_options(raw);
    written == url.path() && NormalPath::parse(written, &options).is_ok_and(|path| path.path() == written)
}
