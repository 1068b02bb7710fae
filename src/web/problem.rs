//! Refusals for programs: problem details as JSON (RFC 9457).

use http::StatusCode;
use serde::Serialize;

/// The media type (RFC 9457 section 3).
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// The body of a refusal.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Problem<'a> {
    #[serde(rename = "type")]
    problem_type: String,
    title: String,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<&'a str>,
}

impl<'a> Problem<'a> {
    /// `kind` is the last part of the type: stable, for programs to tell refusals apart.
    pub(super) fn new(
        kind: &str,
        status: StatusCode,
        detail: &'a str,
        request_id: &'a str,
        login: Option<&'a str>,
    ) -> Self {
        let problem_type = format!("urn:portcullis:problem:{kind}");
        let title = sentence(kind);
        Self { problem_type, title, status: status.as_u16(), detail, request_id, login }
    }

    /// The JSON text.
    pub(super) fn to_json(&self) -> String {
        // Strings and a number can't fail to serialise.
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }
}

/// `not-allowed` as "Not allowed": the title is the same for every problem of a type (RFC 9457 section 3.1.3).
fn sentence(kind: &str) -> String {
    let mut letters = kind.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).map(|letter| if letter == '-' { ' ' } else { letter }).collect()
}
