//! `check`: looks at everything that a configuration names, and says what to fix.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::config::{Authorization, Config, Service};
use crate::oidc::{self, Provider};
use crate::proxy::{self, Connector, HttpVersion};
use crate::session::{Binding, KeyRing, KeySource, NewSession, Sealer, Session, Sessions, redis};
use crate::tag::Claims;
use crate::tls::{self, Certificate};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// What it is about: a service, or the whole.
    pub about: String,
    /// What was found.
    pub what: String,
    /// What to do; empty if nothing is to be done.
    pub fix: String,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Fine,
    /// It works; somebody should look at it.
    Warning,
    /// It will not work.
    Error,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Fine => "ok     ",
            Level::Warning => "warning",
            Level::Error => "ERROR  ",
        };
        write!(f, "{level} {}: {}", self.about, self.what)?;
        if !self.fix.is_empty() {
            write!(f, " -> {}", self.fix)?;
        }
        Ok(())
    }
}

/// Looks at everything; `offline` connects to nothing. Wants a tokio runtime.
pub async fn check(config: &Config, offline: bool) -> Vec<Finding> {
    let mut findings = vec![Finding {
        level: Level::Fine,
        about: "configuration".to_owned(),
        what: format!("services: {}, rules: {}", config.services.len(), rules(config)),
        fix: String::new(),
    }];
    for warning in &config.warnings {
        findings.push(finding(Level::Warning, "configuration", warning, ""));
    }
    findings.push(keys(&config.session_keys));
    findings.extend(config.state_directory.as_deref().map(state_directory));
    if let Some(redis) = config.redis.as_ref().filter(|_| !offline) {
        findings.push(store(redis).await);
    }
    for service in &config.services {
        findings.push(certificate(service, config.state_directory.as_deref()));
        if let Authorization::Oidc(oidc) = &service.authorization {
            if config.redis.is_none() {
                findings.push(cookie_size(service, oidc));
            }
            findings.extend(provider(service, oidc, offline).await);
        }
        if !offline {
            findings.push(application(service).await);
        }
    }
    findings
}

fn rules(config: &Config) -> usize {
    config.services.iter().map(|service| service.policy.rule_count()).sum()
}

fn finding(level: Level, about: &str, what: impl fmt::Display, fix: &str) -> Finding {
    Finding { level, about: about.to_owned(), what: what.to_string(), fix: fix.to_owned() }
}

fn about(service: &Service) -> String {
    format!("service {}", service.name)
}

fn keys(source: &KeySource) -> Finding {
    let about = "session keys";
    match source {
        KeySource::File(path) => match KeyRing::load(source) {
            Ok(ring) => {
                let count = ring.ids().count();
                finding(Level::Fine, about, format!("{count} in {}", path.display()), "")
            }
            Err(error) => finding(Level::Error, about, error, "fix session.keyFile"),
        },
        KeySource::State(directory) => finding(
            Level::Fine,
            about,
            format!("kept in {}, made there once if missing", directory.display()),
            "",
        ),
        KeySource::Ephemeral => finding(
            Level::Warning,
            about,
            "new at every start: a restart logs everybody out, and replicas do not share sessions",
            "set stateDirectory or session.keyFile",
        ),
    }
}

/// Whether sessions could be kept in Redis now. Writes one key, which lives for a minute.
async fn store(config: &redis::Config) -> Finding {
    let about = "session.redis";
    match redis::try_once(config).await {
        Ok(()) => finding(Level::Fine, about, "Redis answers, and can be read and written", ""),
        Err(error) => finding(Level::Error, about, error, "see docs/sessions-redis.md"),
    }
}

/// Whether the state directory can be written, or made. Leaves nothing behind.
fn state_directory(directory: &Path) -> Finding {
    let about = "stateDirectory";
    // The last ancestor of a relative path is empty, which means the working directory.
    let here = |ancestor: &Path| {
        if ancestor.as_os_str().is_empty() { Path::new(".").to_owned() } else { ancestor.to_owned() }
    };
    let Some(existing) = directory.ancestors().map(here).find(|ancestor| ancestor.is_dir()) else {
        return finding(
            Level::Error,
            about,
            format!("{} has no directory above it", directory.display()),
            "fix the path",
        );
    };
    let probe = existing.join(format!(".portcullis-check-{}", std::process::id()));
    let written = std::fs::OpenOptions::new().write(true).create_new(true).open(&probe);
    let _ = std::fs::remove_file(&probe);
    match written {
        Ok(_) if existing == directory => {
            finding(Level::Fine, about, format!("{} can be written", directory.display()), "")
        }
        Ok(_) => finding(Level::Fine, about, format!("{} will be made", directory.display()), ""),
        Err(error) => finding(
            Level::Error,
            about,
            format!("{} cannot be written: {error}", existing.display()),
            "give the user that Portcullis runs as the right to write there",
        ),
    }
}

/// How much room a session's claims have: a session without any is made and measured.
fn cookie_size(service: &Service, oidc: &oidc::Config) -> Finding {
    let about = about(service);
    let measured = || {
        let ring = KeyRing::load(&KeySource::Ephemeral).ok()?;
        let binding = Binding {
            service: service.name.to_string(),
            host: service.canonical_host.as_str().to_owned(),
            issuer: oidc.issuer.clone(),
            client_id: oidc.client_id.clone(),
        };
        let sealer = Sealer::new(Arc::new(ArcSwap::from_pointee(ring)), &binding);
        let clock = Clock::system();
        let login = NewSession {
            issuer: &oidc.issuer,
            subject: "00000000-0000-0000-0000-000000000000",
            sid: None,
            claims: &Claims::new(),
            keep: &oidc.needed_claims,
            born: clock.now_millis(),
            token_expires_at: clock.now(),
            acr: None,
            auth_time: None,
            grant: None,
            id_token: None,
            replaced: Vec::new(),
        };
        let session = Session::new(login, clock.now()).ok()?;
        let cookies =
            Sessions::new(service.session.clone(), sealer, clock).seal(&session, &HeaderMap::new()).ok()?;
        Some(cookies.iter().map(http::HeaderValue::len).sum::<usize>())
    };
    let Some(bytes) = measured() else {
        return finding(
            Level::Error,
            &about,
            "a session could not be sealed",
            "is the system out of entropy?",
        );
    };
    let claims: Vec<&str> = oidc.needed_claims.iter().map(String::as_str).collect();
    let kept =
        if claims.is_empty() { "no claims".to_owned() } else { format!("the claims {}", claims.join(", ")) };
    let what = format!(
        "session cookie: {bytes} bytes before claims; keeps {kept}; at most 12 cookies and 40 KiB, about 29 KB of claims"
    );
    finding(Level::Fine, &about, what, "")
}

fn certificate(service: &Service, state: Option<&Path>) -> Finding {
    let about = about(service);
    match &service.tls {
        None => finding(Level::Fine, &about, "TLS is terminated by the trusted proxies", ""),
        Some(Certificate::Own { .. }) => match state {
            Some(state) => {
                let bundle = tls::ca_bundle_path(&state.join("certs"));
                finding(
                    Level::Fine,
                    &about,
                    format!("own certificate; clients trust {}", bundle.display()),
                    "",
                )
            }
            None => finding(
                Level::Warning,
                &about,
                "own certificate by a CA that is new at every start",
                "set stateDirectory, so that clients can trust it",
            ),
        },
        Some(Certificate::External { certificate, key }) => match tls::inspect(certificate, key) {
            Err(error) => finding(
                Level::Error,
                &about,
                format!("certificate: {error}"),
                "fix TLSCertificate and TLSCertificateKey",
            ),
            Ok(facts) => {
                let hosts: Vec<_> = service
                    .hosts
                    .iter()
                    .filter_map(|host| tls::HostName::parse(host.as_str()).ok())
                    .collect();
                match facts.doubts(&hosts, Clock::system().now()).first() {
                    None => finding(Level::Fine, &about, format!("certificate of {}", facts.subject), ""),
                    // The texts of doubts say what to do.
                    Some(doubt @ tls::Doubt::ExpiresSoon(_)) => {
                        finding(Level::Warning, &about, format!("certificate: {doubt}"), "")
                    }
                    Some(doubt) => finding(Level::Error, &about, format!("certificate: {doubt}"), ""),
                }
            }
        },
    }
}

async fn provider(service: &Service, oidc: &oidc::Config, offline: bool) -> Vec<Finding> {
    let about = about(service);
    let provider = Provider::new(oidc.clone(), Clock::system(), Handle::current(), Arc::new(|_| ()));
    let provider = match provider {
        Ok(provider) => provider,
        Err(error) => return vec![finding(Level::Error, &about, error, "")],
    };
    let callback = finding(
        Level::Fine,
        &about,
        format!("callback URL is {}", oidc.redirect_uri),
        "register exactly this at the identity provider",
    );
    let mut findings = vec![callback];
    findings.extend(logout_addresses(&about, oidc));
    if offline {
        return findings;
    }
    findings.extend(provider.diagnose().await.into_iter().map(|found| {
        let level = match found.level {
            oidc::Level::Ok => Level::Fine,
            oidc::Level::Warning => Level::Warning,
            oidc::Level::Error => Level::Error,
        };
        finding(level, &about, found.what, &found.fix)
    }));
    findings
}

/// What the provider has to know for a logout that reaches both ends.
fn logout_addresses(about: &str, oidc: &oidc::Config) -> Vec<Finding> {
    let rows = [
        (LOGOUT_PATH, "after a logout the provider sends browsers to", "a post-logout redirect URI"),
        (BACK_CHANNEL_LOGOUT_PATH, "the provider reports logouts to", "the back-channel logout URI"),
    ];
    let told = |(path, does, name)| {
        let url = oidc.redirect_uri.join(path).ok()?;
        let fix = format!("register this at the identity provider as {name}, if it has such a setting");
        Some(finding(Level::Fine, about, format!("{does} {url}"), &fix))
    };
    rows.into_iter().filter_map(told).collect()
}

/// Where a logout ends, at the host of the callback.
const LOGOUT_PATH: &str = "/aporeto/oidc/logout";
/// Where the provider sends logout tokens.
const BACK_CHANNEL_LOGOUT_PATH: &str = "/aporeto/oidc/backchannel-logout";

async fn application(service: &Service) -> Finding {
    let about = about(service);
    let result = match Connector::new(&service.upstream.upstream, service.upstream.version) {
        Ok(connector) => connector.probe(service.upstream.connect_timeout.min(LONGEST_PROBE)).await,
        Err(error) => return finding(Level::Error, &about, error, "fix upstream"),
    };
    match result {
        Ok(()) => {
            let what = match service.upstream.version {
                HttpVersion::Http1 => "the application accepts connections",
                HttpVersion::Http2 => "the application speaks HTTP/2",
            };
            finding(Level::Fine, &about, what, "")
        }
        // Its text says what to do.
        Err(error @ proxy::Error::NotHttp2 { .. }) => finding(Level::Error, &about, error, ""),
        Err(error) => {
            finding(Level::Error, &about, error, "start the application, or fix `port` or `upstream`")
        }
    }
}

/// Longest wait for the application.
const LONGEST_PROBE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_that_can_be_made_is_fine() {
        // Relative, as in a configuration file of the working directory.
        assert_eq!(state_directory(Path::new("not-there-yet")).level, Level::Fine);
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(state_directory(directory.path()).level, Level::Fine);
        assert_eq!(state_directory(&directory.path().join("a/b")).level, Level::Fine);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "something was left behind");
        assert_eq!(state_directory(Path::new("/proc/self/state")).level, Level::Error);
    }
}
