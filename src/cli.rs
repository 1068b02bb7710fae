//! The command line, data only: what may be asked for and the help that explains it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use url::Url;

/// An OpenID Connect enforcing reverse proxy.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "portcullis",
    version,
    about = "An OpenID Connect enforcing reverse proxy in one binary",
    long_about = "Portcullis sits in front of a web application, terminates TLS, sends browsers without a session to \
                  your identity provider, turns the claims of the ID token into tags, checks the tags of every \
                  request against rules on URI and method, and forwards what is allowed. The application needs \
                  no change.",
    after_help = "New here? `portcullis try` starts everything on this machine, with nothing to configure.\n\
                  Exit codes: 0 fine, 1 could not start or a check failed, 64 bad usage or bad configuration.",
    subcommand_required = true,
    arg_required_else_help = false,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The eight verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the proxy
    #[command(after_help = "Without -c the built-in configuration is used, filled from the environment:\n  \
        IDP_URL        issuer of the identity provider, such as https://idp.example.com\n  \
        CLIENT_ID      client id registered there\n  \
        CLIENT_SECRET  its secret\n  \
        APP_URL        where browsers reach the application: https://app.example.com\n  \
        APP_DOMAIN     the host in APP_URL\n  \
        APP_PORT       port of the application on 127.0.0.1\n  \
        USER_PORT      port where Portcullis listens with TLS\n  \
        USER_TAG       tag that a user needs, such as groups=staff\n\
        And if set, STATE_DIRECTORY (keeps keys and certificates) and ADMIN_LISTEN (127.0.0.1:9901).\n\n\
        SIGTERM drains: not ready for limits.shutdownDelay, then no new connections, then exit 0.")]
    Run(ConfigArgs),
    /// Try it here and now: a development identity provider, a demo app and the proxy, all on loopback
    #[command(
        after_help = "Nothing to configure and nothing to install; nothing is reachable from another host.\n\
        With --app your own application is protected instead of the demo:\n  \
        portcullis try --app http://localhost:3000"
    )]
    Try(TryArgs),
    /// Check the configuration, then test the connection to everything it names
    #[command(after_help = "One line per finding, each with what to do. Exit code 0 when nothing is wrong.")]
    Check(CheckArgs),
    /// Say which rule decides about a request, and which tags it has and lacks
    #[command(
        after_help = "Example:\n  portcullis explain -c portcullis.yaml --service private-app --method GET \\\n    \
        --path /reports --claims claims.json\n\n\
        Claims are the JSON object of an ID token's payload; without --claims nobody is logged in."
    )]
    Explain(ExplainArgs),
    /// Make a session key, or put a new one into a key file that is in use
    #[command(after_help = "Without --into the new key is printed: lines for the file of session.keyFile.\n\
        A running proxy reads the file again by itself. One proxy, in one step:\n  \
        portcullis keygen --into session.keys\n\
        Several proxies with a copy each: first --append on all of them, then move the new lines to the top on all \
        of them. Remove the old key when session.idleTimeout has passed, and not before an hour has.")]
    Keygen(KeygenArgs),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Run only the development identity provider, on loopback
    DevIdp(DevIdpArgs),
}

/// Where the configuration is.
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// A YAML file, or a directory whose *.yaml files are merged in name order
    #[arg(short = 'c', long = "config", value_name = "FILE-or-DIR")]
    pub config: Option<PathBuf>,
}

/// Arguments of `try`.
#[derive(Args, Clone, Debug)]
pub struct TryArgs {
    /// Protect this application instead of the demo
    #[arg(long, value_name = "URL", value_parser = parse_app)]
    pub app: Option<Url>,
    /// Tag that a user needs for the application given with --app
    #[arg(long, value_name = "TAG", requires = "app")]
    pub user_tag: Option<String>,
    /// Port of the proxy; by default 8443, or the next free one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
}

/// Arguments of `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Look only at the configuration and its files; connect to nothing
    #[arg(long)]
    pub offline: bool,
}

/// Arguments of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Name of the service; may be left out when there is only one
    #[arg(long, value_name = "S")]
    pub service: Option<String>,
    /// Method of the request
    #[arg(long, value_name = "M", default_value = "GET")]
    pub method: String,
    /// Path of the request, as a client would send it
    #[arg(long, value_name = "P")]
    pub path: String,
    /// File with the claims as a JSON object; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub claims: Option<PathBuf>,
}

/// Arguments of `keygen`.
#[derive(Args, Clone, Debug)]
pub struct KeygenArgs {
    /// Put the new key first in this key file, which is made if it is missing
    #[arg(long, value_name = "FILE")]
    pub into: Option<PathBuf>,
    /// Put it last: it opens sessions and does not seal them yet
    #[arg(long, requires = "into")]
    pub append: bool,
}

/// Arguments of `dev-idp`.
#[derive(Args, Clone, Debug)]
pub struct DevIdpArgs {
    /// Port on loopback
    #[arg(long, value_name = "N", default_value_t = 9400)]
    pub port: u16,
    /// Callback URL of the one client that may use it
    #[arg(long, value_name = "URL", default_value = "https://localhost:8443/aporeto/oidc/callback")]
    pub redirect_uri: Url,
    /// Client id
    #[arg(long, value_name = "ID", default_value = "portcullis")]
    pub client_id: String,
    /// Client secret
    #[arg(
        long,
        value_name = "SECRET",
        default_value = "development-only",
        env = "DEV_IDP_CLIENT_SECRET",
        hide_env_values = true
    )]
    pub client_secret: String,
}

fn parse_app(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; write it like http://localhost:3000"))?;
    match (url.scheme(), url.host_str()) {
        ("http" | "https", Some(_)) if url.path() == "/" && url.query().is_none() => Ok(url),
        ("http" | "https", Some(_)) => {
            Err("only scheme, host and port; paths are kept as they are".to_owned())
        }
        _ => Err("write it like http://localhost:3000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_app_is_an_origin() {
        assert!(parse_app("http://localhost:3000").is_ok());
        for wrong in ["localhost:3000", "3000", "http://localhost:3000/x", "ftp://localhost", "unix:/x"] {
            assert!(parse_app(wrong).is_err(), "{wrong}");
        }
    }
}
