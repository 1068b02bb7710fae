//! `try` and `dev-idp`: the whole product on loopback, with nothing to configure.
//!
//! Starts the development identity provider, the demo app (or none, for an app of one's own) and the proxy on
//! the configuration text that a person could have written. Nothing here is reachable from another host.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tokio::net::TcpListener;

use crate::cli::{DevIdpArgs, TryArgs};
use crate::clock::Clock;
use crate::config::{self, AdminListen, Environment, Mistakes};
use crate::devidp::{
    App, Client, DEFAULT_USER_TAG, DemoApp, DevIdp, KeyError, RedirectUris, Setup, User, callback_url,
    demo_users, may_use,
};
use crate::path::NormalPath;
use crate::policy::{Caller, Decision};
use crate::proxy::Connector;
use crate::run::{Options, Proxy, StartError, install_cryptography, raise_file_limit, stop_signal};
use crate::secret::Secret;
use crate::tag::TagSet;
use crate::telemetry::{Format, Log};

/// Why a trial could not start. Exit code 1; [`TrialError::Configuration`] 64.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// A port is taken.
    #[error("cannot listen on 127.0.0.1 port {port}: {cause}; choose another with --port")]
    Port {
        /// The port.
        port: u16,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The tag is not one, most likely.
    #[error("the rules for --app do not work:\n{0}")]
    Configuration(Mistakes),
    /// The key of the development provider.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// The proxy.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A runtime, a signal, a small listener.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Runs everything until SIGTERM or SIGINT.
pub fn try_it(arguments: &TryArgs) -> Result<(), TrialError> {
    install_cryptography();
    let (log, writer) = Log::to_stdout(Format::Auto);
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = control.block_on(trial(arguments, log));
    writer.finish();
    result
}

async fn trial(arguments: &TryArgs, log: Log) -> Result<(), TrialError> {
    raise_file_limit();
    let stop = stop_signal()?;
    let port = proxy_port(arguments.port)?;
    let provider = loopback(0)?;
    let issuer = format!("http://127.0.0.1:{}", provider.local_addr()?.port());
    let redirect_uris = RedirectUris::Exactly(vec![callback_url(port)]);
    let client = Client::with_fresh_secret("portcullis", redirect_uris)?;
    let demo = if arguments.app.is_none() { Some(loopback(0)?) } else { None };
    let own_url = arguments.app.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
    let user_tag = arguments.user_tag.as_deref().unwrap_or(DEFAULT_USER_TAG);
    let app = match (&own_url, &demo) {
        (Some(url), _) => App::Own { url, user_tag },
        (None, Some(demo)) => App::Demo { port: demo.local_addr()?.port() },
        (None, None) => App::Demo { port: 0 },
    };
    let state = state_directory();
    let mut admin = admin_listen()?;
    let wanted_admin = admin.to_string();
    let setup = Setup {
        issuer: &issuer,
        client: &client,
        exposed_port: port,
        app,
        state_directory: state.as_deref(),
        admin_listen: Some(&wanted_admin),
    };
    let source = config::Source::Text { name: "try".to_owned(), text: setup.config() };
    let mut config = config::load(&source, &Environment::of_process()).map_err(TrialError::Configuration)?;
    // Ctrl-C should not leave a person waiting for load balancers that are not there.
    config.limits.shutdown_delay = std::time::Duration::ZERO;
    config.limits.connections = CONNECTIONS;
    // They are about what a trial is: plain HTTP to a provider on this machine.
    config.warnings.clear();
    let users = match app {
        App::Demo { .. } => demo_users(),
        App::Own { .. } => may_use(demo_users(), |user| is_allowed(&config, user)),
    };
    let app_answers = match config
        .services
        .first()
        .map(|service| Connector::new(&service.upstream.upstream, service.upstream.version))
    {
        Some(Ok(connector)) if own_url.is_some() => connector.probe(PROBE_TIMEOUT).await.is_ok(),
        _ => true,
    };
    let options = Options { log, explain_denials: true, clock: Clock::system() };
    let mut tries = 0;
    let proxy = loop {
        match Proxy::assemble(&config, &options) {
            // Somebody took the port since it was found free.
            Err(StartError::Admin(_)) if tries < ADMIN_TRIES => {
                tries += 1;
                admin = free_address()?;
                config.admin.listen = AdminListen::Tcp(admin);
            }
            result => break result?,
        }
    };
    tell(&setup, &users, admin, own_url.as_deref().map(|url| (url, user_tag)))?;
    if !app_answers {
        let url = own_url.as_deref().unwrap_or_default();
        writeln!(
            std::io::stdout().lock(),
            "NOTE: nothing accepts connections at {url} yet; start your application.\n"
        )?;
    }
    let idp = DevIdp::new(&issuer, vec![client.clone()], users, Clock::system())?;
    tokio::spawn(async move { idp.serve(provider).await.map(|never| match never {}) });
    if let Some(demo) = demo {
        tokio::spawn(async move { DemoApp.serve(demo).await.map(|never| match never {}) });
    }
    proxy.serve(stop).await?;
    Ok(())
}

/// Runs only the development identity provider, until SIGTERM or SIGINT.
pub fn dev_idp(arguments: &DevIdpArgs) -> Result<(), TrialError> {
    install_cryptography();
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    control.block_on(async {
        let stop = stop_signal()?;
        let listener = loopback(arguments.port)?;
        let issuer = format!("http://127.0.0.1:{}", listener.local_addr()?.port());
        let client = Client {
            id: arguments.client_id.clone(),
            secret: Secret::new(arguments.client_secret.clone()),
            redirect_uris: RedirectUris::Exactly(vec![arguments.redirect_uri.to_string()]),
        };
        let idp = DevIdp::new(&issuer, vec![client], demo_users(), Clock::system())?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "A development identity provider: anybody on this machine may sign in as anybody.\n")?;
        writeln!(out, "{issuer}\n")?;
        writeln!(out, "is the issuer (OIDCProviderURL). The one client that it knows:\n")?;
        writeln!(out, "  client id     {}", arguments.client_id)?;
        writeln!(out, "  callback URL  {}\n", arguments.redirect_uri)?;
        for user in demo_users() {
            writeln!(out, "  {:<6} groups={:<14} {}", user.login, user.groups.join(","), user.email)?;
        }
        drop(out);
        tokio::select! {
            result = idp.serve(listener) => result.map(|never| match never {}).map_err(|error| std::io::Error::other(error.to_string()))?,
            () = stop => {}
        }
        Ok(())
    })
}

/// The port of the proxy: the wanted one, or 8443, or the next free one after it.
fn proxy_port(wanted: Option<u16>) -> Result<u16, TrialError> {
    let free = |port: u16| {
        // Free on every address, so that nobody is served by somebody else's listener on the same port.
        let any = std::net::TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port));
        any.or_else(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => Err(error),
            _ => std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)),
        })
    };
    let Some(port) = wanted else {
        let found = (DEFAULT_PORT..DEFAULT_PORT + PORTS_TRIED).find(|port| free(*port).is_ok());
        return found.ok_or_else(|| TrialError::Port {
            port: DEFAULT_PORT,
            cause: std::io::Error::from(std::io::ErrorKind::AddrInUse),
        });
    };
    free(port).map(|_| port).map_err(|cause| TrialError::Port { port, cause })
}

fn loopback(port: u16) -> Result<TcpListener, TrialError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    bind().map_err(|cause| TrialError::Port { port, cause })
}

/// The default admin address, or another free port where a proxy runs already.
fn admin_listen() -> Result<SocketAddr, TrialError> {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 9901));
    if std::net::TcpListener::bind(default).is_ok() {
        return Ok(default);
    }
    free_address()
}

fn free_address() -> Result<SocketAddr, TrialError> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Where the certificate is kept, so that a browser that trusted it once still does: the XDG state directory.
fn state_directory() -> Option<PathBuf> {
    let base = match std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()) {
        Some(base) => base,
        None => {
            let home = std::env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute())?;
            home.join(".local/state")
        }
    };
    let directory = base.join("portcullis/try");
    std::fs::create_dir_all(&directory).is_ok().then_some(directory)
}

fn is_allowed(config: &config::Config, user: &User) -> bool {
    let Some(service) = config.services.first() else { return false };
    let held = service.policy.bind(&TagSet::from_claims(&user.claims()));
    let Ok(path) = NormalPath::parse("/", &service.path) else { return false };
    let Ok(rule) = service.policy.find(&http::Method::GET, &path) else { return false };
    let caller = Caller::Known { held: &held, acr: None, auth_time: None };
    matches!(service.policy.decide(rule, caller, Clock::system().now()), Decision::Allow(_))
}

fn tell(
    setup: &Setup<'_>,
    users: &[User],
    admin: SocketAddr,
    own: Option<(&str, &str)>,
) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match own {
        None => writeln!(out, "Portcullis is in front of a small demo app. Open")?,
        Some((url, tag)) => {
            writeln!(out, "Portcullis is in front of {url}; a user needs the tag {tag}. Open")?
        }
    }
    writeln!(out, "\n{}\n", setup.url())?;
    writeln!(out, "and sign in with a click. These people exist:\n")?;
    users_table(&mut out, users)?;
    if let Some(state) = setup.state_directory {
        let bundle = crate::tls::ca_bundle_path(&state.join("certs"));
        writeln!(out, "\nThe browser warns about the certificate, for its CA is of this machine only.")?;
        writeln!(out, "To have it trusted, import {}", bundle.display())?;
    }
    writeln!(out, "\n  identity provider  {} (development only)", setup.issuer)?;
    writeln!(out, "  admin              http://{admin}/readyz  /metrics  /config")?;
    writeln!(
        out,
        "\nEverything listens on this machine only. Ctrl-C ends it. What happens is logged here:\n"
    )?;
    out.flush()
}

fn users_table(out: &mut impl std::io::Write, users: &[User]) -> std::io::Result<()> {
    for user in users {
        let groups = if user.groups.is_empty() { "no groups".to_owned() } else { user.groups.join(", ") };
        writeln!(out, "  {:<6} {:<14} {}", user.login, groups, user.may)?;
    }
    Ok(())
}

/// Where `try` serves unless told otherwise.
const DEFAULT_PORT: u16 = 8443;
/// Connections at once: enough for a person, and for whatever limit of open files a shell has.
const CONNECTIONS: usize = 400;
/// Longest look for an application of one's own.
const PROBE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);
/// Addresses that are tried for the admin listener after the first.
const ADMIN_TRIES: u8 = 3;
/// Ports that are tried from there on.
const PORTS_TRIED: u16 = 100;

#[cfg(test)]
mod tests;
