//! The mirror of a `service`, with the field names of the original object. See `raw` for the rest of the file.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::raw::{Ignored, SecretText};
use super::unit::TimeSpan;

/// One protected application.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Service {
    /// The name of the service in records, metrics and cookies: at most 64 letters, digits,
    /// spaces, `-`, `_` and `.`.
    #[schemars(extend("x-needed" = true))]
    pub name: Option<String>,
    /// The kind of application.
    pub r#type: ServiceType,
    /// How users prove who they are.
    pub authorization_type: AuthorizationType,

    /// The issuer of the identity provider, exactly as its discovery document has it. Discovery is
    /// `<url>/.well-known/openid-configuration`. `https`; plain `http` only on loopback.
    #[serde(rename = "OIDCProviderURL")]
    pub oidc_provider_url: Option<String>,
    /// The client id that the identity provider gave.
    #[serde(rename = "OIDCClientID")]
    pub oidc_client_id: Option<String>,
    /// The client secret that the identity provider gave.
    #[serde(rename = "OIDCClientSecret")]
    pub oidc_client_secret: Option<SecretText>,
    /// A file with the client secret, read again when it changes.
    #[serde(rename = "OIDCClientSecretFile")]
    pub oidc_client_secret_file: Option<String>,
    /// Where users see the application, as registered at the identity provider. `https`. If its path is empty
    /// or `/`, `/aporeto/oidc/callback` is appended; another path is used whole.
    #[serde(rename = "OIDCCallbackURL")]
    pub oidc_callback_url: Option<String>,
    /// The scopes to ask for. `openid` is always sent; nothing else is added.
    #[serde(rename = "OIDCScopes")]
    pub oidc_scopes: Vec<String>,
    /// The CA of the identity provider: PEM, or the path of a PEM file. By default the system's roots.
    #[serde(rename = "OIDCProviderCertificateAuthority")]
    #[schemars(extend("format" = "pem"))]
    pub oidc_provider_certificate_authority: Option<String>,
    /// The same, as the path of a PEM file.
    #[serde(rename = "OIDCProviderCertificateAuthorityFile")]
    pub oidc_provider_certificate_authority_file: Option<String>,
    /// How Portcullis proves itself at the token endpoint.
    #[serde(rename = "OIDCClientAuthentication")]
    pub oidc_client_authentication: ClientAuthentication,
    /// Narrows the algorithms of ID token signatures. By default RS256-512, PS256-512, ES256, ES384 and EdDSA,
    /// as far as the identity provider lists them. HS256-512 count only if listed here.
    #[serde(rename = "OIDCSigningAlgorithms")]
    pub oidc_signing_algorithms: Option<Vec<SigningAlgorithm>>,
    /// How far the clocks of the identity provider and of this machine may be apart. 60s is the maximum.
    #[serde(rename = "OIDCClockSkew")]
    #[schemars(extend("x-maximum" = "60s"))]
    pub oidc_clock_skew: TimeSpan,
    /// When the UserInfo endpoint is asked.
    #[serde(rename = "OIDCUserInfo")]
    pub oidc_user_info: UserInfo,
    /// Extra parameters of the authorization request, such as `prompt`, `max_age` or `acr_values` (the last two
    /// are then verified). Those of the protocol itself are refused.
    #[serde(rename = "OIDCAuthorizationParameters")]
    pub oidc_authorization_parameters: BTreeMap<String, String>,
    /// Front-channel logout at `/aporeto/oidc/frontchannel-logout`: the identity provider ends a session by loading
    /// that page in a frame, with the exact `iss` and a `sid`. Back-channel logout needs no setting, and is better.
    #[serde(rename = "OIDCFrontChannelLogout")]
    pub oidc_front_channel_logout: bool,

    /// The host names of the application. A request for another one gets 421. By default the host of
    /// `OIDCCallbackURL`, which must be among them: logins end there, and a session is for that host only.
    pub hosts: Vec<String>,
    /// The address to listen on. By default all addresses of both families.
    pub listen_address: Option<String>,
    /// The port that users see. TLS, unless `TLSType` is `None`.
    #[schemars(range(min = 1), extend("x-needed" = true))]
    pub exposed_port: Option<u16>,
    /// A second, plain listener for the checks of load balancers: only endpoints with `public: true` pass, and
    /// credentials are never read. Off by default.
    #[schemars(range(min = 1))]
    pub public_application_port: Option<u16>,
    /// A plain listener that answers with 308 to the `https` URL. Off by default.
    #[schemars(range(min = 1))]
    pub http_redirect_port: Option<u16>,
    /// Where the certificate of `exposedPort` comes from.
    #[serde(rename = "TLSType")]
    pub tls_type: TlsType,
    /// For `TLSType: External`: the certificate chain, PEM or the path of a PEM file, read again when it changes.
    #[serde(rename = "TLSCertificate")]
    #[schemars(extend("format" = "pem"))]
    pub tls_certificate: Option<String>,
    /// The same, as the path of a PEM file.
    #[serde(rename = "TLSCertificateFile")]
    pub tls_certificate_file: Option<String>,
    /// For `TLSType: External`: the private key, PEM or the path of a PEM file, read again when it changes.
    #[serde(rename = "TLSCertificateKey")]
    #[schemars(extend("format" = "pem"))]
    pub tls_certificate_key: Option<SecretText>,
    /// The same, as the path of a PEM file.
    #[serde(rename = "TLSCertificateKeyFile")]
    pub tls_certificate_key_file: Option<String>,
    /// Addresses or networks of load balancers. Only from them are `X-Forwarded-For` and `X-Forwarded-Proto`
    /// believed, or `Forwarded` where there is neither. None by default.
    pub trusted_proxies: Vec<String>,
    /// Load balancers put a PROXY protocol header (version 1 or 2) in front of every connection to `exposedPort` and
    /// `httpRedirectPort`, and the address in it counts as the client's, also for `trustedProxies`. Not for
    /// `publicApplicationPort`, which is for their checks. Services on one port need the same setting.
    pub proxy_protocol_enabled: bool,
    /// For `proxyProtocolEnabled`: the addresses or networks of the load balancers. Connections from them must begin
    /// with a header; from anywhere else a header is refused.
    pub proxy_protocol_subnets: Vec<String>,
    /// `Strict-Transport-Security` with this max-age: a length of time, or seconds. Off by default.
    #[serde(deserialize_with = "super::unit::seconds_or_span")]
    #[schemars(schema_with = "super::unit::seconds_or_span_schema")]
    pub hsts: Option<TimeSpan>,

    /// The port of the application, on 127.0.0.1. Needed unless `upstream` is set.
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// Where the application is, if not at `http://127.0.0.1:<port>`: `http://`, `https://` or `unix:/path` for
    /// HTTP/1.1; for HTTP/2 (gRPC needs it) `h2c://` without TLS, `h2://` with TLS, or `h2c+unix:/path`.
    pub upstream: Option<String>,
    /// The application itself speaks TLS. Its certificate is always verified.
    #[serde(rename = "exposedServiceIsTLS")]
    pub exposed_service_is_tls: bool,
    /// The CA of the application: PEM, or the path of a PEM file. By default the system's roots.
    #[schemars(extend("format" = "pem"))]
    pub trusted_certificate_authorities: Option<String>,
    /// The same, as the path of a PEM file.
    pub trusted_certificate_authorities_file: Option<String>,

    /// Which of `httpResourceSpecs` apply: a list of lists of tags. A spec applies if its `associatedTags` have
    /// all tags of one of the inner lists.
    #[serde(rename = "exposedAPIs")]
    pub exposed_apis: Vec<Vec<String>>,
    /// Whether decisions are carried out.
    pub mode: Mode,
    /// What becomes of CORS preflights (OPTIONS with `Origin` and `Access-Control-Request-Method`).
    pub cors_preflight: CorsPreflight,
    /// Origins besides the own one that may open WebSockets and read our own 401, 403 and 503 answers.
    pub allowed_origins: Vec<String>,
    /// Several slashes in a path count as one. Otherwise such a path gets 400.
    pub merge_slashes: bool,
    /// What becomes of `%2F` and `%5C` in a path.
    pub encoded_slashes: EncodedSlashes,
    /// Claims that the application gets as headers. The client's own copies are removed.
    #[serde(rename = "claimsToHTTPHeaderMappings")]
    pub claims_to_http_header_mappings: Vec<ClaimMapping>,
    /// Where browsers go that are logged in and not allowed, with `failure_message=authorization` added. By
    /// default they get a 403 page.
    #[serde(rename = "redirectURLOnAuthorizationFailure")]
    pub redirect_url_on_authorization_failure: Option<String>,

    /// Accepted from original files and ignored.
    #[serde(skip_serializing)]
    pub selectors: Option<Ignored>,
    /// Accepted from original files and ignored.
    #[serde(skip_serializing)]
    pub namespace: Option<Ignored>,
    /// Accepted from original files and ignored.
    #[serde(skip_serializing)]
    pub propagate: Option<Ignored>,
    /// Accepted from original files and ignored.
    #[serde(skip_serializing)]
    pub annotations: Option<Ignored>,
    /// Accepted from original files and ignored.
    #[serde(skip_serializing)]
    pub description: Option<Ignored>,
    /// Accepted from original files and ignored.
    #[serde(skip_serializing)]
    pub metadata: Option<Ignored>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            name: None,
            r#type: ServiceType::Http,
            authorization_type: AuthorizationType::Oidc,
            oidc_provider_url: None,
            oidc_client_id: None,
            oidc_client_secret: None,
            oidc_client_secret_file: None,
            oidc_callback_url: None,
            oidc_scopes: vec!["openid".to_owned()],
            oidc_provider_certificate_authority: None,
            oidc_provider_certificate_authority_file: None,
            oidc_client_authentication: ClientAuthentication::Auto,
            oidc_signing_algorithms: None,
            oidc_clock_skew: TimeSpan::seconds(60),
            oidc_user_info: UserInfo::Auto,
            oidc_authorization_parameters: BTreeMap::new(),
            oidc_front_channel_logout: false,
            hosts: Vec::new(),
            listen_address: None,
            exposed_port: None,
            public_application_port: None,
            http_redirect_port: None,
            tls_type: TlsType::Aporeto,
            tls_certificate: None,
            tls_certificate_file: None,
            tls_certificate_key: None,
            tls_certificate_key_file: None,
            trusted_proxies: Vec::new(),
            proxy_protocol_enabled: false,
            proxy_protocol_subnets: Vec::new(),
            hsts: None,
            port: None,
            upstream: None,
            exposed_service_is_tls: false,
            trusted_certificate_authorities: None,
            trusted_certificate_authorities_file: None,
            exposed_apis: Vec::new(),
            mode: Mode::Enforce,
            cors_preflight: CorsPreflight::Enforce,
            allowed_origins: Vec::new(),
            merge_slashes: false,
            encoded_slashes: EncodedSlashes::Refuse,
            claims_to_http_header_mappings: Vec::new(),
            redirect_url_on_authorization_failure: None,
            selectors: None,
            namespace: None,
            propagate: None,
            annotations: None,
            description: None,
            metadata: None,
        }
    }
}

/// `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ServiceType {
    /// A web application.
    Http,
}

/// `authorizationType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AuthorizationType {
    /// Login at an OpenID Connect provider.
    #[serde(rename = "OIDC")]
    Oidc,
    /// No login: an error unless every endpoint is public.
    None,
}

/// `OIDCClientAuthentication`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuthentication {
    /// `basic` if the identity provider offers it or doesn't say, else `post`.
    Auto,
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
}

/// `OIDCSigningAlgorithms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the names of RFC 7518 and RFC 8037")]
pub enum SigningAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    #[serde(rename = "EdDSA")]
    EdDsa,
    Hs256,
    Hs384,
    Hs512,
}

/// `OIDCUserInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UserInfo {
    /// Once at login, when a rule or a mapping names a claim that the ID token lacks.
    Auto,
    /// Once at every login.
    Always,
    /// Never.
    Never,
}

/// `TLSType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TlsType {
    /// An own certificate by an own CA, in `certs/` under `stateDirectory`, renewed by itself.
    Aporeto,
    /// `TLSCertificate` and `TLSCertificateKey`.
    External,
    /// Plain, behind a proxy that does TLS: needs `trustedProxies`. Only requests from those with
    /// `X-Forwarded-Proto: https` are served; all others get 308 to `https`.
    None,
}

/// `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are.
    Enforce,
    /// Whoever is logged in is let through; what would have been refused is recorded as `Observe`. To try out
    /// rules only.
    Observe,
}

/// `corsPreflight`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CorsPreflight {
    /// They are judged like any other request.
    Enforce,
    /// They go to the application without a login and without identity.
    Forward,
}

/// `encodedSlashes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodedSlashes {
    /// 400.
    Refuse,
    /// They stay, as part of one segment.
    Keep,
}

/// A claim that the application gets as a header.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimMapping {
    /// The claim, by its whole name.
    #[serde(rename = "claimName")]
    #[schemars(extend("x-needed" = true))]
    pub claim_name: Option<String>,
    /// The header.
    #[serde(rename = "targetHTTPHeader")]
    #[schemars(extend("x-needed" = true))]
    pub target_http_header: Option<String>,
}
