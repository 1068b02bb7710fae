//! Everything that can be wrong with a configuration: what is wrong, and after the semicolon what to do. The
//! blame is always the configuration's. Values appear only as [`Shown`].

use super::error::{Place, Shown};
use super::host::HostError;
use crate::session::CookieNameError;
use crate::session::redis::AddressError;

/// What is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant is")]
pub enum Problem {
    // Files
    #[error("cannot be read: {cause}; name a YAML file or a directory of *.yaml files")]
    Unreadable { cause: String },
    #[error("is larger than {} MiB; is this the right file?", most / (1 << 20))]
    FileTooLarge { most: u64 },
    #[error("is not UTF-8 text; save it as UTF-8")]
    NotUtf8,
    #[error("no *.yaml file in this directory; put the configuration there, or name a file")]
    NoFiles,
    #[error("{name} in this directory is not read, for it does not end in .yaml; rename it, or move it away")]
    OtherEnding { name: String },
    #[error("more than {most} *.yaml files in this directory; merge some")]
    TooManyFiles { most: usize },
    #[error("is empty; write at least the section `services`, or remove the file")]
    EmptyFile,

    // YAML
    #[error(
        "is not valid YAML: {0}; look at the indentation, quotes and brackets here and in the line before"
    )]
    Syntax(String),
    #[error("a second document begins here; put it into a file of its own in a directory")]
    SecondDocument,
    #[error("is here twice, first at {first}; keep one")]
    DuplicateKey { first: Place },
    #[error("this section is also in {first}; keep it in one file")]
    DuplicateSection { first: Place },
    #[error("a key here is a list or a mapping; keys are names")]
    ComplexKey,
    #[error("has a YAML tag that means nothing here; remove the word that begins with `!`")]
    UnknownTag,
    #[error("this alias stands for something that it is part of; write the value out")]
    AliasInsideItself,
    #[error("`<<` takes an alias of a mapping, or a list of those")]
    BadMerge,
    #[error("is nested more than {most} levels deep; is this the right file?")]
    TooDeep { most: usize },
    #[error("has more than {most} values; is this the right file?")]
    TooManyValues { most: usize },

    // Variables
    #[error("the variable {name} is not set; set it, or write ${{{name}:-default}}")]
    UnsetVariable { name: String },
    #[error("the value of the variable {name} is not UTF-8; set it to text")]
    VariableNotUtf8 { name: String },
    #[error(
        "a variable is written ${{NAME}} or ${{NAME:-default}}; correct it, or write $$ for a dollar sign"
    )]
    BadVariable,
    #[error("`${{` without its `}}`; close it, or write $$ for a dollar sign")]
    UnclosedVariable,
    #[error("a default can't contain another variable; give that variable a default of its own")]
    NestedVariable,
    #[error("a variable inside [..] or {{..}} must be quoted; write \"${{NAME}}\"")]
    UnquotedVariable,
    #[error("variables are expanded in values, not in keys; write the key out")]
    VariableInKey,

    // Shape
    #[error("unknown key; the nearest known name is `{nearest}`{}", belongs(.elsewhere))]
    UnknownKey { nearest: String, elsewhere: Option<String> },
    #[error("not supported in this version; remove it")]
    NotSupportedKey,
    #[error("{shown} is not supported in this version; choose another value")]
    NotSupportedValue { shown: Shown },
    #[error("is missing; add it ({what})")]
    Missing { what: String },
    #[error("has no value; give it one, or remove the key")]
    NoValue,
    #[error("is empty; {}", empty(*by_variable))]
    Empty { by_variable: bool },
    #[error("is {found}; write {expected}")]
    WrongType { expected: &'static str, found: &'static str },
    #[error("{shown} is not what belongs here; write {expected}{}", if *unquote { ", without quotes" } else { "" })]
    WrongValue { shown: Shown, expected: &'static str, unquote: bool },
    #[error("{shown} is not one of {}{}", list(.allowed), suggestion(.nearest))]
    NotOneOf { shown: Shown, allowed: Vec<String>, nearest: Option<String> },
    #[error("{shown} is out of range; write something {}", range(.least, .most))]
    OutOfRange { shown: Shown, least: String, most: String },
    #[error("has a line break or another control character in it; {}", control(*by_variable))]
    ControlCharacter { by_variable: bool },

    // Names, hosts, URLs
    #[error("another service has this name, at {first}; each needs its own")]
    SameName { first: Place },
    #[error("{shown} can't be a service name; use at most {most} letters, digits, spaces, `-`, `_` and `.`")]
    BadServiceName { shown: Shown, most: usize },
    #[error("{shown} {error}")]
    BadHost { shown: Shown, error: HostError },
    #[error("the host of OIDCCallbackURL is not among them; add it, or correct OIDCCallbackURL")]
    CallbackHostMissing,
    #[error(
        "the host {host} belongs to another service on the same port, at {first}; services that share a port need different hosts"
    )]
    SharedHost { host: String, first: Place },
    #[error("{shown} is not {expected}; write it like {example}")]
    BadUrl { shown: Shown, expected: &'static str, example: &'static str },
    #[error("{shown} has {part}; {advice}")]
    UrlPart { shown: Shown, part: &'static str, advice: &'static str },
    #[error(
        "must begin with https://, because the cookies of the login are Secure; write the URL that users see, also behind a proxy that does TLS"
    )]
    CallbackNotHttps,
    #[error(
        "its path is one that Portcullis itself answers for another purpose; choose another, or leave the path out"
    )]
    CallbackReserved,
    #[error(
        "its path is not in its normal form; write it as it is registered at the identity provider, without dot segments and needless escapes"
    )]
    CallbackPath,
    #[error("plain http to an identity provider is possible on loopback only; use its https:// URL")]
    PlainIssuer,
    #[error("this is the discovery document; leave out /.well-known/openid-configuration")]
    IssuerIsDiscovery,
    #[error("{shown} is not an IP address{}", if *network { " or a network; write it like 10.0.0.1 or 10.0.0.0/8" } else { "; write one, or leave the key out to listen on all" })]
    BadAddress { shown: Shown, network: bool },
    #[error("{shown} is not {expected}")]
    BadListen { shown: Shown, expected: &'static str },

    // Combinations
    #[error("`{this}` and `{other}` exclude each other; keep one")]
    Exclusive { this: &'static str, other: &'static str },
    #[error("has no effect {condition}; remove it, or {advice}")]
    NoEffect { condition: &'static str, advice: &'static str },
    #[error(
        "External needs TLSCertificate and TLSCertificateKey, or TLSCertificateFile and TLSCertificateKeyFile; add them"
    )]
    ExternalWithoutPair,
    #[error(
        "None serves plain HTTP and needs trustedProxies; name the addresses of the proxy that does TLS, or choose another TLSType"
    )]
    PlainWithoutProxies,
    #[error(
        "needs proxyProtocolSubnets, for whoever sends the header is believed; name the addresses of the load balancers"
    )]
    ProxyProtocolWithoutSubnets,
    #[error(
        "shares its port with {other}, and only one of them expects the PROXY protocol, or from other addresses; give both the same proxyProtocolEnabled and proxyProtocolSubnets"
    )]
    ProxyProtocolUnlike { other: String },
    #[error(
        "None is possible only if every endpoint is public, and the one at {endpoint} is not; use OIDC, or make it public"
    )]
    NotAllPublic { endpoint: Place },
    #[error(
        "listens beyond loopback and needs tokenFile; set admin.tokenFile, or listen on 127.0.0.1 and use admin.probes for health checks"
    )]
    AdminWithoutToken,
    #[error("this port is taken by {other}; choose another")]
    PortTaken { other: String },
    #[error(
        "shares its port with {other}, so both need the same listenAddress and must both be TLS or both plain; make them equal, or choose another port"
    )]
    PortSharedUnlike { other: String },
    #[error(
        "this port is where Portcullis itself listens ({listener}), so requests would go in circles; name the port of the application"
    )]
    ForwardsToItself { listener: String },

    // Files named in the configuration
    #[error("cannot read the file {shown}: {cause}; check the path and who may read it")]
    FileUnreadable { shown: Shown, cause: String },
    #[error("the file {shown} is empty; put the value there")]
    FileEmpty { shown: Shown },
    #[error(
        "{shown} is neither PEM text nor a file that can be read ({cause}); write the path of a PEM file"
    )]
    NeitherPemNorFile { shown: Shown, cause: String },
    #[error("the file {shown} has no PEM text in it; it must have a block that starts with -----BEGIN")]
    NotPem { shown: Shown },

    // Redis
    #[error("{0}")]
    RedisUrl(AddressError),

    // The identity provider
    #[error("{shown} can't be a scope; write one scope per entry, without spaces")]
    BadScope { shown: Shown },
    #[error("is set by the protocol itself; remove it")]
    ProtocolParameter,
    #[error("{shown} is not what belongs here; write a whole number of seconds")]
    BadMaxAge { shown: Shown },
    #[error("{shown} can't be the name of a cookie ({error}); write it like __Host-portcullis")]
    CookieName { shown: Shown, error: CookieNameError },

    // The application
    #[error("{shown} is not a header name; use letters, digits and `-`")]
    BadHeaderName { shown: Shown },
    #[error("{0}")]
    HeaderRefused(&'static str),
    #[error("this header is already set by the mapping at {first}; each needs its own")]
    SameHeader { first: Place },

    // Rules
    #[error("no HTTP resource spec has {}{}", if *several { "all of these tags together" } else { "this tag" }, near_tag(.nearest))]
    NothingSelected { several: bool, nearest: Option<(Shown, Place)> },
    #[error("an empty list selects nothing; write at least one tag")]
    EmptySelector,
    #[error("{message}{}", twin(.other))]
    Rule { message: String, other: Option<Place> },

    #[error(
        "the configuration could not be read, although its schema allows it; this is a mistake in Portcullis, please report it with the shape of this section"
    )]
    Internal,
}

fn belongs(elsewhere: &Option<String>) -> String {
    elsewhere
        .as_ref()
        .map_or_else(String::new, |place| format!(", and a key of this name belongs under {place}"))
}

fn empty(by_variable: bool) -> &'static str {
    if by_variable {
        "the variable is set to nothing: give it a value"
    } else {
        "write a value, or remove it"
    }
}

fn control(by_variable: bool) -> &'static str {
    if by_variable { "look at the value of the variable" } else { "remove it" }
}

fn list(allowed: &[String]) -> String {
    allowed.join(", ")
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(|| "; choose one".to_owned(), |near| format!("; did you mean {near}?"))
}

fn range(least: &str, most: &str) -> String {
    if most.is_empty() { format!("from {least} on") } else { format!("from {least} to {most}") }
}

fn near_tag(nearest: &Option<(Shown, Place)>) -> String {
    nearest.as_ref().map_or_else(
        || "; give a spec in httpResourceSpecs these associatedTags".to_owned(),
        |(tag, place)| format!("; the nearest is {tag} at {place}"),
    )
}

fn twin(other: &Option<Place>) -> String {
    other.as_ref().map_or_else(String::new, |place| format!("; the other one is at {place}"))
}
