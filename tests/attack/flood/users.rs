//! People who use the proxy while it is attacked: pages with a session over connections that are kept, over HTTP/2 and
//! over new connections, and logins. A line of JSON for each: when, how long it took, what, and
//! what went wrong.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

use crate::browser::{Browser, PATIENCE};
use crate::{Plan, USERS_HOST, wire};

/// Pages a second over each connection that is kept; how many there are.
const KEPT_RATE: u32 = 20;
const KEPT: usize = 3;
/// New connections a second.
const FRESH_RATE: u32 = 8;
/// Time from one login to the next.
const LOGIN_EVERY: Duration = Duration::from_millis(700);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Goes on until the process is ended.
pub async fn go_on(plan: Plan) {
    let mut browser = Browser::default();
    browser.log_in(plan.port).await.unwrap();
    let cookie = browser.cookie();
    println!("{{\"ready\":true}}");
    for _ in 0..KEPT {
        tokio::spawn(keep_asking(plan.port, cookie.clone(), "http/1.1"));
    }
    tokio::spawn(keep_asking(plan.port, cookie.clone(), "h2"));
    tokio::spawn(come_anew(plan.port, cookie));
    let mut due = every(LOGIN_EVERY);
    loop {
        due.tick().await;
        let tick = Instant::now();
        tokio::spawn(async move { report("login", tick, Browser::default().log_in(plan.port).await) });
    }
}

/// `plan.count` logins at once.
pub async fn log_in_at_once(plan: Plan) {
    let mut logins = tokio::task::JoinSet::new();
    for _ in 0..plan.count {
        logins.spawn(async move { Browser::default().log_in(plan.port).await });
    }
    let begun = Instant::now();
    let failed: Vec<String> = logins.join_all().await.into_iter().filter_map(Result::err).collect();
    let finished = plan.count - failed.len();
    println!(
        "{}",
        json!({ "finished": finished, "failed": failed, "seconds": begun.elapsed().as_secs_f64() })
    );
}

/// Whoever waited long for a page asks for the next one once it is there, and not for all that they missed.
fn every(period: Duration) -> tokio::time::Interval {
    let mut due = tokio::time::interval(period);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    due
}

fn report(what: &str, since: Instant, result: Result<(), String>) {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let took = since.elapsed();
    println!(
        "{}",
        json!({ "at": at, "ms": took.as_secs_f64() * 1000.0, "what": what, "failed": result.err() })
    );
}

/// One page after the other over one connection, which is made anew where it has ended.
async fn keep_asking(port: u16, cookie: String, protocol: &'static str) {
    let config = wire::client(protocol.as_bytes());
    let mut due = every(Duration::from_secs(1) / KEPT_RATE);
    let mut sender = None;
    loop {
        due.tick().await;
        let tick = Instant::now();
        let ask = async {
            let mut last = String::new();
            // A connection may end between two pages; browsers ask again, and so do these. But only once.
            for _ in 0..2 {
                let result = async {
                    if sender.is_none() {
                        sender = Some(Sender::connect(port, &config, protocol).await?);
                    }
                    sender.as_mut().ok_or("no connection")?.page(port, &cookie).await
                };
                match result.await {
                    Ok(()) => return Ok(()),
                    Err(error) => last = format!("{error} {:?}", error.source().map(ToString::to_string)),
                }
                sender = None;
            }
            Err(last)
        };
        let result =
            tokio::time::timeout(PATIENCE, ask).await.unwrap_or_else(|_| Err("no answer".to_owned()));
        report(if protocol == "h2" { "http2" } else { "kept" }, tick, result);
    }
}

/// Each page over a connection of its own.
async fn come_anew(port: u16, cookie: String) {
    let config = wire::client(b"http/1.1");
    let mut due = every(Duration::from_secs(1) / FRESH_RATE);
    loop {
        due.tick().await;
        let tick = Instant::now();
        let (config, cookie) = (config.clone(), cookie.clone());
        tokio::spawn(async move {
            let ask = async { Sender::connect(port, &config, "http/1.1").await?.page(port, &cookie).await };
            let result = tokio::time::timeout(PATIENCE, ask).await;
            let result: Result<(), Failure> = result.unwrap_or_else(|_| Err("no answer".into()));
            report("fresh", tick, result.map_err(|error| error.to_string()));
        });
    }
}

enum Sender {
    Http1(hyper::client::conn::http1::SendRequest<Empty<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Empty<Bytes>>),
}

impl Sender {
    async fn connect(
        port: u16,
        config: &std::sync::Arc<rustls::ClientConfig>,
        protocol: &str,
    ) -> Result<Self, Failure> {
        let io = TokioIo::new(wire::connect_as_usual(port, config).await?);
        if protocol == "h2" {
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            return Ok(Self::Http2(sender));
        }
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        Ok(Self::Http1(sender))
    }

    async fn page(&mut self, port: u16, cookie: &str) -> Result<(), Failure> {
        let request = Request::builder().header(header::COOKIE, cookie);
        let empty = Empty::new();
        let response = match self {
            Self::Http1(sender) => {
                let request = request.uri("/app/mine").header(header::HOST, format!("{USERS_HOST}:{port}"));
                sender.ready().await?;
                sender.send_request(request.body(empty)?).await?
            }
            Self::Http2(sender) => {
                let request = request.uri(format!("https://{USERS_HOST}:{port}/app/mine"));
                sender.ready().await?;
                sender.send_request(request.body(empty)?).await?
            }
        };
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status.as_u16() != 200 || body != "/app/mine" {
            return Err(format!("{status} {:.200}", String::from_utf8_lossy(&body)).into());
        }
        Ok(())
    }
}
