//! `check`: looks at everything that a configuration names, and says what to fix.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::config::{Authorization, Config, Service};
use crate::oidc::{self, Provider};
use crate::proxy::Connector;
use crate::session::{KeyRing, KeySource};
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
        what: format!("{} services, {} rules", config.services.len(), rules(config)),
        fix: String::new(),
    }];
    for warning in &config.warnings {
        findings.push(finding(Level::Warning, "configuration", warning, ""));
    }
    findings.push(keys(&config.session_keys));
    for service in &config.services {
        findings.push(certificate(service, config.state_directory.as_deref()));
        if let Authorization::Oidc(oidc) = &service.authorization {
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
                    Some(doubt) => {
                        finding(Level::Error, &about, format!("certificate: {doubt}"), "have it issued anew")
                    }
                }
            }
        },
    }
}

async fn provider(service: &Service, oidc: &oidc::Config, offline: bool) -> Vec<Finding> {
    let about = about(service);
    let provider =
        Provider::new(oidc.clone(), Clock::system(), Handle::current(), std::sync::Arc::new(|_| ()));
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

async fn application(service: &Service) -> Finding {
    let about = about(service);
    let result = match Connector::new(&service.upstream.upstream) {
        Ok(connector) => connector.probe(service.upstream.connect_timeout.min(LONGEST_PROBE)).await,
        Err(error) => return finding(Level::Error, &about, error, "fix upstream"),
    };
    match result {
        Ok(()) => finding(Level::Fine, &about, "the application accepts connections", ""),
        Err(error) => {
            finding(Level::Error, &about, error, "start the application, or fix `port` or `upstream`")
        }
    }
}

/// Longest wait for the application.
const LONGEST_PROBE: Duration = Duration::from_secs(5);
