//! The demo app: rooms behind rules, and not one line about logins. What it knows of a user it reads from the
//! headers that the proxy sets.

use std::convert::Infallible;
use std::sync::Arc;

use askama::Template;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::net::TcpListener;

use super::answer::{self, Answer};
use super::serve::{self, ServeError, Site};

/// The demo app. Its rules are in the configuration that [`Setup`](super::Setup) writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct DemoApp;

impl DemoApp {
    /// Serves until the future is dropped.
    ///
    /// # Errors
    /// `listener` is not on loopback.
    pub async fn serve(self, listener: TcpListener) -> Result<Infallible, ServeError> {
        serve::serve(listener, Arc::new(self)).await
    }
}

impl Site for DemoApp {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let (head, _unread) = request.into_parts();
        let visitor = Visitor::from_headers(&head.headers);
        let get = matches!(head.method, Method::GET | Method::HEAD);
        match head.uri.path() {
            "/events" if get => answer::events(),
            "/api/notes" if head.method == Method::POST => {
                let note = json!({ "written": true, "by": visitor.map(|visitor| visitor.name) });
                answer::json(StatusCode::CREATED, &note)
            }
            _ if !get => answer::text(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n"),
            "/" => home(visitor, &head.headers),
            "/whoami" => who_am_i(visitor, &head.headers),
            "/api/notes" => {
                answer::json(StatusCode::OK, &json!({ "notes": ["water the plants", "feed the moat"] }))
            }
            "/admin/report" => answer::json(StatusCode::OK, &json!({ "visitors": 3, "dragons": 0 })),
            path => match ROOMS.iter().find(|room| room.path == path) {
                Some(room) => show(&RoomPage { page: Common::new(visitor), room }),
                None => answer::text(StatusCode::NOT_FOUND, "the demo app has nothing here\n"),
            },
        }
    }
}

fn home(visitor: Option<Visitor>, headers: &HeaderMap) -> Answer {
    let direct = !headers.contains_key("x-forwarded-host");
    show(&HomePage { page: Common::new(visitor), rooms: ROOMS, direct, script: SCRIPT })
}

fn who_am_i(visitor: Option<Visitor>, headers: &HeaderMap) -> Answer {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let all = headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
    let (stamped, sent) = all.partition(|(name, _)| STAMPED.iter().any(|stamp| name.starts_with(stamp)));
    show(&WhoPage { page: Common::new(visitor), stamped, sent })
}

fn show(page: &impl Template) -> Answer {
    let (style, script) = (answer::hash_source(STYLE), answer::hash_source(SCRIPT));
    let policy = format!(
        "default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    );
    answer::page(StatusCode::OK, page, &policy)
}

/// Somebody whom the proxy has named.
struct Visitor {
    name: String,
    email: String,
    groups: Vec<String>,
}

impl Visitor {
    /// Values come with `,`, `%` and everything beyond ASCII percent-encoded.
    fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let value = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let id = value(HeaderName::from_static("x-user-id"))?;
        let name = value(HeaderName::from_static("x-user-name")).unwrap_or(id);
        let email = value(HeaderName::from_static("x-user-email")).unwrap_or_default();
        let groups = value(HeaderName::from_static("x-user-groups")).unwrap_or_default();
        let groups = groups.split(',').filter(|group| !group.is_empty()).map(decode).collect();
        Some(Self { name: decode(name), email: decode(email), groups })
    }
}

/// A page behind a rule.
pub(super) struct Room {
    pub(super) path: &'static str,
    name: &'static str,
    /// Who gets in, in words.
    needs: &'static str,
    /// The tags that the rule asks for.
    pub(super) tags: &'static [&'static str],
    /// Alice, Bob, Carol.
    open_to: [bool; 3],
    /// What is said inside.
    inside: &'static str,
}

impl Room {
    pub(super) fn people(&self) -> impl Iterator<Item = (&'static str, bool)> {
        ["Alice", "Bob", "Carol"].into_iter().zip(self.open_to)
    }
}

/// What every page has.
struct Common {
    style: &'static str,
    visitor: Option<Visitor>,
}

impl Common {
    fn new(visitor: Option<Visitor>) -> Self {
        Self { style: STYLE, visitor }
    }
}

#[derive(Template)]
#[template(path = "demo_home.html")]
struct HomePage {
    page: Common,
    rooms: &'static [Room],
    /// Nobody stands before the app.
    direct: bool,
    script: &'static str,
}

#[derive(Template)]
#[template(path = "demo_room.html")]
struct RoomPage {
    page: Common,
    room: &'static Room,
}

#[derive(Template)]
#[template(path = "demo_whoami.html")]
struct WhoPage {
    page: Common,
    /// Names and values that the proxy has set.
    stamped: Vec<(String, String)>,
    /// Those that the browser has sent.
    sent: Vec<(String, String)>,
}

/// The start page shows them in this order; the rules are in `setup`.
pub(super) const ROOMS: &[Room] = &[
    Room {
        path: "/public",
        name: "The square",
        needs: "Everybody, signed in or not.",
        tags: &[],
        open_to: [true; 3],
        inside: "The rule for this page is public, so that nobody was asked anything.",
    },
    Room {
        path: "/whoami",
        name: "The mirror",
        needs: "Everybody who is signed in.",
        tags: &["sub=*"],
        open_to: [true; 3],
        inside: "",
    },
    Room {
        path: "/verified",
        name: "The post office",
        needs: "Everybody with a verified address at example.com.",
        tags: &["email=*@example.com"],
        open_to: [true, true, false],
        inside: "Carol has an address at example.com too, but hers is not verified: a rule on email never holds for her.",
    },
    Room {
        path: "/staff",
        name: "The kitchen",
        needs: "Staff.",
        tags: &["groups=staff"],
        open_to: [true, true, false],
        inside: "One tag was asked for, and you have it. The app was told who you are, not whether you may be here.",
    },
    Room {
        path: "/admin",
        name: "The control room",
        needs: "Administrators.",
        tags: &["groups=admin"],
        open_to: [true, false, false],
        inside: "Only Alice gets in here. Bob sees a page that tells him what he lacks.",
    },
    Room {
        path: "/vault",
        name: "The vault",
        needs: "Staff with a second factor, signed in less than 5 minutes ago.",
        tags: &["groups=staff", "acr: mfa", "age: 5m"],
        open_to: [true, true, false],
        inside: "Your sign-in is fresh and had a second factor. Come back in 5 minutes and you will be asked again.",
    },
];

/// How the headers that the proxy sets begin.
const STAMPED: &[&str] = &["x-user-", "x-forwarded-", "forwarded", "x-request-id"];

const STYLE: &str = include_str!("pages/demo.css");
const SCRIPT: &str = include_str!("pages/demo.js");
