//! Our own pages: one layout, no script, one inline style sheet that the content security policy allows by
//! its hash. Says how a page looks; what it says comes from the constructors of [`Reply`](super::respond::Reply).

use std::borrow::Cow;
use std::sync::LazyLock;

use askama::Template;
use aws_lc_rs::digest;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{HeaderValue, StatusCode};

/// Why somebody who is signed in may not pass, as far as they may know. [`Refusal::default`] says nothing.
#[derive(Clone, Debug, Default)]
pub struct Refusal<'a> {
    /// Who they are signed in as, in words that they know: a name or an address.
    pub account: Option<&'a str>,
    /// Where they can sign out, to come back as somebody else.
    pub sign_out: Option<&'a str>,
    /// What in the rules decided. Only for people who may read the rules: it tells how to get in.
    pub because: Option<Because<'a>>,
}

/// What in the rules refused a request.
#[derive(Clone, Copy, Debug)]
pub enum Because<'a> {
    /// No rule matches the path and the method.
    NoRule,
    /// The rule lets nobody in.
    Nobody,
    /// The rule turns away whoever has these tags.
    Denied(&'a [String]),
    /// The rule asks for an address, and the provider says that the caller's is not verified.
    EmailUnverified,
    /// No clause of the rule is met. One whole clause would be enough.
    Lacking(&'a [Vec<Need>]),
}

/// One tag of a clause, and whether the caller has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The tag as the rule writes it.
    pub tag: String,
    /// Whether the caller meets it.
    pub held: bool,
}

/// The gate drawn on a page: the mood of the answer at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// A login is all that is missing.
    Shut,
    /// No.
    Refused,
    /// Something is broken, here or behind.
    Trouble,
    /// All is well.
    Open,
}

impl Gate {
    /// Whether a number on the page helps whoever is told about it.
    fn is_failure(self) -> bool {
        matches!(self, Gate::Refused | Gate::Trouble)
    }

    fn class(self) -> &'static str {
        match self {
            Gate::Shut => "shut",
            Gate::Refused => "refused",
            Gate::Trouble => "trouble",
            Gate::Open => "open",
        }
    }
}

/// Somewhere to go next.
pub(super) struct Link<'a> {
    pub(super) text: &'static str,
    pub(super) href: &'a str,
}

/// A form with one hidden token and one button.
pub(super) struct Form<'a> {
    pub(super) action: &'a str,
    pub(super) token: &'a str,
}

/// What a page has below its sentences.
pub(super) enum Extra<'a> {
    Nothing,
    Causes(&'static [&'static str]),
    Refused(&'a Refusal<'a>),
    Form(Form<'a>),
}

/// A page, ready to be written out. Askama escapes every value; only the style sheet is trusted text.
#[derive(Template)]
#[template(path = "notice.html")]
pub(super) struct Page<'a> {
    pub(super) gate: Gate,
    pub(super) status: StatusCode,
    pub(super) service: Option<&'a str>,
    pub(super) request_id: &'a str,
    pub(super) title: &'a str,
    pub(super) happened: &'a str,
    pub(super) next: Cow<'a, str>,
    pub(super) extra: &'a Extra<'a>,
    pub(super) links: &'a [Link<'a>],
    pub(super) style: &'static str,
}

/// The content security policy of every answer of ours: nothing but the one style sheet, forms to ourselves,
/// and no frame around it.
pub(super) fn content_security_policy() -> HeaderValue {
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| policy("'self'", "'none'"));
    POLICY.clone()
}

/// The same for a page whose form leads on to other origins: browsers hold the redirects after it to `form-action`
/// too, and only the provider knows how many those are.
pub(super) fn policy_with_way_out(way_out: &str) -> HeaderValue {
    // Over plain HTTP there are only providers on loopback.
    match way_out.strip_prefix("http://").and_then(|rest| rest.split('/').next()) {
        Some(authority) => policy(&format!("'self' https: http://{authority}"), "'none'"),
        None => policy("'self' https:", "'none'"),
    }
}

/// The same for what `origin` may frame.
pub(super) fn policy_within(origin: &str) -> HeaderValue {
    policy("'none'", origin)
}

fn policy(form_action: &str, frame_ancestors: &str) -> HeaderValue {
    static STYLE_HASH: LazyLock<String> =
        LazyLock::new(|| BASE64_STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes())));
    let hash = STYLE_HASH.as_str();
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action {form_action}; frame-ancestors {frame_ancestors}; base-uri 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static(STRICTEST))
}

/// The style sheet of every page.
pub(super) const STYLE: &str = include_str!("pages/style.css");

/// The way out of most pages.
pub(super) const HOME: Link<'static> = Link { text: "Start page", href: "/" };

/// Without even a style sheet; in case the hash could not be written.
const STRICTEST: &str = "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Most clauses on a page, and most tags of one.
const MAX_SHOWN: usize = 12;
