//! The `portcullis` command: eight verbs and their exit codes.
#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use portcullis::cli::{CheckArgs, Cli, Command, ConfigArgs, ExplainArgs, KeygenArgs};
use portcullis::clock::Clock;
use portcullis::config::{self, Config, Environment};
use portcullis::session::{self, KeyPlace};
use portcullis::tag::Claims;
use portcullis::trial::TrialError;
use portcullis::{check, explain, file, run, trial};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => {
            // Help and version come this way too, and are no error.
            let code = if message.use_stderr() { USAGE } else { FINE };
            let _ = message.print();
            return ExitCode::from(code);
        }
    };
    let code = match cli.command {
        Command::Run(arguments) => run_proxy(&arguments),
        Command::Try(arguments) => try_it(&arguments),
        Command::Check(arguments) => check_config(&arguments),
        Command::Explain(arguments) => explain_request(&arguments),
        Command::Keygen(arguments) => keygen(&arguments),
        Command::Schema => say(&format!("{:#}", config::schema())),
        Command::DevIdp(arguments) => ended(trial::dev_idp(&arguments)),
    };
    ExitCode::from(code)
}

fn run_proxy(arguments: &ConfigArgs) -> u8 {
    let config = match load(arguments) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match run::run(&config, run::log_format(&config)) {
        Ok(()) => FINE,
        Err(error) => complain(FAILED, &error),
    }
}

fn try_it(arguments: &portcullis::cli::TryArgs) -> u8 {
    ended(trial::try_it(arguments))
}

fn ended(result: Result<(), TrialError>) -> u8 {
    match result {
        Ok(()) => FINE,
        Err(error @ TrialError::Configuration(_)) => complain(USAGE, &error),
        Err(error) => complain(FAILED, &error),
    }
}

fn check_config(arguments: &CheckArgs) -> u8 {
    let config = match load(&arguments.config) {
        Ok(config) => config,
        Err(code) => return code,
    };
    run::install_cryptography();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(FAILED, &error),
    };
    let findings = runtime.block_on(check::check(&config, arguments.offline));
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let bad = findings.iter().any(|finding| finding.level == check::Level::Error);
    say(&lines.join("\n")).max(if bad { FAILED } else { FINE })
}

fn explain_request(arguments: &ExplainArgs) -> u8 {
    let config = match load(&arguments.config) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let claims = match arguments.claims.as_deref().map(read_claims).transpose() {
        Ok(claims) => claims,
        Err(error) => return complain(USAGE, &error),
    };
    let question = explain::Question {
        service: arguments.service.as_deref(),
        method: &arguments.method,
        path: &arguments.path,
        claims: claims.as_ref(),
    };
    match explain::explain(&config, question) {
        Ok(text) => say(text.trim_end()),
        Err(error) => complain(USAGE, &error),
    }
}

fn keygen(arguments: &KeygenArgs) -> u8 {
    let now = Clock::system().now();
    let Some(file) = &arguments.into else {
        return match session::new_key(now) {
            Ok(lines) => say(lines.expose().trim_end()),
            Err(error) => complain(FAILED, &error),
        };
    };
    let (place, use_of_it) = match arguments.append {
        true => (KeyPlace::Last, "the last key: it opens sessions and seals none"),
        false => (KeyPlace::First, "the first key: it seals, and all of them open"),
    };
    match session::add_key(file, place, now) {
        Ok(id) => say(&format!("{}: key {id} is now {use_of_it}", file.display())),
        Err(error) => complain(FAILED, &error),
    }
}

fn read_claims(path: &Path) -> Result<Claims, String> {
    let failed = |error: &dyn std::fmt::Display| format!("--claims {}: {error}", path.display());
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().take(MAX_CLAIMS_BYTES).read_to_string(&mut text).map_err(|error| failed(&error))?;
    } else {
        let bytes = file::read(path, MAX_CLAIMS_BYTES).map_err(|error| failed(&error))?;
        text.push_str(std::str::from_utf8(&bytes).map_err(|error| failed(&error))?);
    }
    serde_json::from_str(&text).map_err(|error| failed(&format!("not a JSON object of claims: {error}")))
}

fn load(arguments: &ConfigArgs) -> Result<Config, u8> {
    let source = match &arguments.config {
        Some(path) => config::Source::Path(path.clone()),
        None => config::Source::BuiltIn,
    };
    config::load(&source, &Environment::of_process()).map_err(|mistakes| {
        let _ = writeln!(std::io::stderr().lock(), "{mistakes}");
        USAGE
    })
}

fn say(text: &str) -> u8 {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Ok(()) => FINE,
        // Whoever reads has had enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => FINE,
        Err(_) => FAILED,
    }
}

fn complain(code: u8, error: &dyn std::fmt::Display) -> u8 {
    let _ = writeln!(std::io::stderr().lock(), "portcullis: {error}");
    code
}

const FINE: u8 = 0;
/// Could not start, or a check failed.
const FAILED: u8 = 1;
/// Bad usage or bad configuration (EX_USAGE of sysexits.h).
const USAGE: u8 = 64;
/// Most bytes of a claims file.
const MAX_CLAIMS_BYTES: u64 = 1024 * 1024;
