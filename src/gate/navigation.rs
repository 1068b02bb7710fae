//! Tells a person's navigation from everything else, because only a navigation can be sent to a login page.
//!
//! `Sec-Fetch-*` is written by the browser and can't be set by a script, so it decides wherever it is sent.

use http::header::{AsHeaderName, HeaderName};
use http::header::{ORIGIN, REFERER, UPGRADE};
use http::{HeaderMap, HeaderValue, Method};

use crate::web::respond::Audience;

/// What kind of request this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Navigation {
    /// A top-level GET or HEAD: may be redirected to log in.
    Page,
    /// A top-level request by another method, such as a form POST: its body would be lost by a redirect.
    Unsafe,
    /// fetch, XHR, an API client, a frame, a prefetch, a WebSocket.
    Program,
}

/// What the fields of a request say about it, found by one walk: every request is asked, and there are fewer fields
/// than questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gist {
    pub(super) navigation: Navigation,
    /// It says where it comes from.
    pub(super) has_origin: bool,
    /// It wants to leave HTTP.
    pub(super) has_upgrade: bool,
}

impl Gist {
    /// Reads the fields of a request.
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Self {
        let (mut mode, mut destination) = (None, None);
        let (mut accepts, mut is_script, mut is_prefetch) = (false, false, false);
        let (mut has_origin, mut has_upgrade) = (false, false);
        for (name, value) in headers {
            let text = || value.to_str();
            match name.as_str() {
                "accept" => accepts |= text().is_ok_and(accepts_html),
                "sec-purpose" | "purpose" | "x-moz" => {
                    is_prefetch |= text().is_ok_and(|text| text.contains("prefetch"));
                }
                "sec-fetch-mode" => mode = Some(said(mode, text())),
                "sec-fetch-dest" => destination = Some(said(destination, text())),
                "x-requested-with" => is_script = true,
                "upgrade" => has_upgrade = true,
                "origin" => has_origin = true,
                _ => {}
            }
        }
        let is_navigation = match mode {
            _ if is_prefetch => false,
            Some(mode) => mode == "navigate" && matches!(destination, None | Some("document")),
            None => accepts && !is_script && !has_upgrade,
        };
        let navigation = if is_navigation { Navigation::top_level(method) } else { Navigation::Program };
        Self { navigation, has_origin, has_upgrade }
    }
}

impl Navigation {
    /// Judges by the headers of a request.
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Self {
        Gist::of(method, headers).navigation
    }

    /// The same for our own endpoints that only navigations use: a client that says nothing about itself is
    /// taken for a browser.
    pub(super) fn of_endpoint(method: &Method, headers: &HeaderMap) -> Self {
        let silent = !headers.contains_key(SEC_FETCH_MODE)
            && !headers.contains_key(X_REQUESTED_WITH)
            && !headers.contains_key(UPGRADE);
        if silent && !headers.contains_key(ORIGIN) {
            Self::top_level(method)
        } else {
            Self::of(method, headers)
        }
    }

    /// Who reads our answer.
    pub(super) fn audience(self) -> Audience {
        match self {
            Self::Page | Self::Unsafe => Audience::Person,
            Self::Program => Audience::Program,
        }
    }

    fn top_level(method: &Method) -> Self {
        if method == Method::GET || method == Method::HEAD { Self::Page } else { Self::Unsafe }
    }
}

/// The value of a field that a browser says once; what is said twice is somebody else's.
fn said<'h, E>(before: Option<&'h str>, text: Result<&'h str, E>) -> &'h str {
    if before.is_some() { "?" } else { text.unwrap_or("?") }
}

/// The value of a field: `None` if it is absent, `Some(None)` if it is there more than once.
pub(super) fn only(headers: &HeaderMap, name: impl AsHeaderName) -> Option<Option<&HeaderValue>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(values.next().is_none().then_some(first))
}

/// Whether an Accept field names HTML (RFC 9110 section 12.5.1). A wildcard is what every program sends.
fn accepts_html(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let html = parts.next().is_some_and(|media| {
            media.eq_ignore_ascii_case("text/html") || media.eq_ignore_ascii_case("application/xhtml+xml")
        });
        let refused = parts.any(|parameter| {
            let weight =
                parameter.strip_prefix(['q', 'Q']).and_then(|rest| rest.trim_start().strip_prefix('='));
            weight.is_some_and(|weight| weight.trim().parse() == Ok(0.0_f32))
        });
        html && !refused
    })
}

/// The path and query of a `Referer` that lies in one of `origins`.
pub(super) fn same_origin_referer<'h>(headers: &'h HeaderMap, origin: &str) -> Option<&'h str> {
    let referer = headers.get(REFERER)?.to_str().ok()?;
    let rest = referer.strip_prefix(origin)?;
    if rest.starts_with('/') { rest.split('#').next() } else { None }
}

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| {
                (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    #[test]
    fn only_top_level_navigations_are_pages() {
        const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        for (method, list, expected) in [
            ("GET", &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")][..], Navigation::Page),
            ("HEAD", &[("sec-fetch-mode", "navigate")], Navigation::Page),
            ("POST", &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")], Navigation::Unsafe),
            ("GET", &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], Navigation::Program),
            ("GET", &[("sec-fetch-mode", "cors"), HTML], Navigation::Program),
            ("GET", &[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")], Navigation::Program),
            ("GET", &[("sec-fetch-mode", "websocket")], Navigation::Program),
            (
                "GET",
                &[("sec-fetch-mode", "navigate"), ("sec-purpose", "prefetch;prerender")],
                Navigation::Program,
            ),
            ("GET", &[HTML], Navigation::Page),
            ("POST", &[HTML], Navigation::Unsafe),
            ("GET", &[HTML, ("x-requested-with", "XMLHttpRequest")], Navigation::Program),
            ("GET", &[HTML, ("upgrade", "websocket")], Navigation::Program),
            ("GET", &[("accept", "application/json")], Navigation::Program),
            ("GET", &[("accept", "TEXT/HTML")], Navigation::Page),
            ("GET", &[("accept", "application/json, text/html;q=0.9")], Navigation::Page),
            ("GET", &[("accept", "text/html;q=0, application/json")], Navigation::Program),
            ("GET", &[("accept", "application/x; note=text/html")], Navigation::Program),
            ("GET", &[("sec-fetch-mode", "navigate"), ("sec-fetch-mode", "cors")], Navigation::Program),
            ("GET", &[("accept", "*/*")], Navigation::Program),
            ("GET", &[], Navigation::Program),
        ] {
            assert_eq!(
                Navigation::of(&method.parse().unwrap(), &headers(list)),
                expected,
                "{method} {list:?}"
            );
        }
    }

    #[test]
    fn the_referer_counts_only_on_the_same_origin() {
        let origin = "https://app.example:8443";
        for (referer, expected) in [
            ("https://app.example:8443/form?x=1", Some("/form?x=1")),
            ("https://app.example:8443/form#part", Some("/form")),
            ("https://app.example:84430/form", None),
            ("https://app.example:8443.evil.test/form", None),
            ("https://app.example:8443@evil.test/form", None),
            ("http://app.example:8443/form", None),
            ("https://app.example:8443", None),
        ] {
            assert_eq!(same_origin_referer(&headers(&[("referer", referer)]), origin), expected, "{referer}");
        }
    }
}
