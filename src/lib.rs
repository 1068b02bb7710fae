//! Portcullis: an OpenID Connect enforcing reverse proxy in one binary.
//!
//! It sits in front of one or more web applications, terminates TLS, sends browsers without a session to the
//! identity provider, turns the claims of the ID token into tags, checks the tags of every request against
//! rules on URI and method, and forwards what is allowed. This page is the map of the code; how to use the
//! program is in `README.md` and `docs/`.
//!
//! # The house
//!
//! Imports go one way, and boxes on one line do not know each other. A test reads the `use crate::` lines and
//! holds them to this:
//!
//! ```text
//! main                                      the verbs and their exit codes
//! run, trial, check, explain                assemble boxes for one verb each
//! cli  config                               what was asked for; what is valid
//! server                                    listeners, workers, TLS handshakes, the strict front, draining
//! gate                                      one request: record, decision, answer
//! oidc  session  policy  proxy  tls  telemetry
//! web                                       bodies, our own answers, the client for the provider
//! secret  clock  tag  path  watch  file     leaves
//! devidp                                    only for `try` and `dev-idp`
//! ```
//!
//! One edge between siblings is wanted: `proxy` takes a [`policy::Permit`], which only [`policy`] makes, so
//! that forwarding can't be called without a decision. Each box owns a `Config` that is valid by its type;
//! [`config`] reads the file and fills them in. No box sees the whole, and [`run`] is the one place that does.
//!
//! # A request
//!
//! ```text
//! server::accept     permit -> TCP -> a worker -> PROXY header, TLS -> the strict front -> hyper
//! gate::handle       opens the record, calls admit, hands the record to the body of the answer
//! gate::host         Host and SNI -> service                      else 421
//! path               NormalPath::parse(target)                    else 400
//! gate::endpoints    one of ours? answer and stop
//! gate::credentials  cookie -> session, tags, headers (opened once per cookie and worker); else the store, a refresh
//! policy             find(method, path) -> rule
//! policy             decide(rule, caller) -> Allow(Permit) | Observe | Login | StepUp | Deny
//! proxy              forward(request, Permit, path): strip -> stamp -> send -> clean
//! gate::reject       any refusal -> one response
//! ```
//!
//! The [`path::NormalPath`] that was judged is the only thing that can be forwarded and the only thing that a
//! login returns to.
//!
//! # Threads
//!
//! A worker is a thread with its own runtime: a connection never leaves the worker that serves it, request
//! futures need not be `Send`, and each worker has its own opened sessions and its own connections to the
//! application. The main thread is the control runtime: signals, discovery and key fetches, file watching and
//! the admin listener. A worker that needs the provider asks the control runtime and waits.
//!
//! What has been ended is one list for all workers, with one counter. A request compares the counter with the one
//! that its session was last looked for at. What flows without requests is looked for: four times a second a worker
//! that has streams reads the counter, and cuts the [`web::lifeline::Lifeline`] of each session that is over.
//!
//! # Why the defaults are what they are
//!
//! - *Nothing is forwarded without a rule.* A missing rule is a refusal, and an empty list is nobody.
//! - *Ambiguous targets are refused, not repaired.* A proxy that repairs a path has to guess what the
//!   application would make of it.
//! - *The session lives in the browser.* Sealed, bound to service, host, issuer and client; a restart logs
//!   nobody out, and there is no store to run. Its price is that what ended has to be remembered: in memory, and
//!   in a file of the state directory. Whoever loses that list ends every session, and revives none.
//! - *The login transaction lives in the browser too*, so that anonymous clients can fill nothing.
//! - *The provider may be down.* Discovery runs in the background, never delays the listener, and a bad answer
//!   never replaces a good one. Sessions need no provider.
//! - *What is read ahead is bounded for the process, not for a stream alone.* Per-stream bounds that let one download
//!   be fast add up to gigabytes for whoever opens many and reads none. So [`web::transit`] counts the bytes of all
//!   bodies, and when there are many, each body has one small piece at a time.
//! - *Files are looked at twice a second* rather than watched by the kernel's notifications: the swapped
//!   symbolic links of Kubernetes volumes end such watches silently, and a look at a handful of files is cheap.
//! - *Our own pages say little.* What was wrong with a token is for the log; the page has the id to find it by.
#![forbid(unsafe_code)]

pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod devidp;
pub mod digits;
pub mod explain;
pub mod file;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gate;
pub mod oidc;
pub mod path;
pub mod policy;
pub mod proxy;
pub mod run;
pub mod secret;
pub mod server;
pub mod session;
pub mod tag;
pub mod telemetry;
pub mod tls;
pub mod trial;
pub mod watch;
pub mod web;
