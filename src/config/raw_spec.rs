//! The mirror of an `httpresourcespec`, with the field names of the original object. See `raw` for the rest of the
//! file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::raw::Ignored;
use super::unit::TimeSpan;

/// A set of rules, selected by services through its tags.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct HttpResourceSpec {
    /// The name of the set in records.
    #[schemars(extend("x-needed" = true))]
    pub name: Option<String>,
    /// The tags by which `exposedAPIs` select it.
    pub associated_tags: Vec<String>,
    /// The rules. Their order doesn't matter: the most specific URI decides.
    #[schemars(extend("x-needed" = true))]
    pub endpoints: Vec<Endpoint>,
    /// Accepted from original files and ignored.
    #[serde(skip_serializing)]
    pub selectors: Option<Ignored>,
    /// Accepted from original files and ignored.
    #[serde(skip_serializing)]
    pub namespace: Option<Ignored>,
    /// Accepted from original files and ignored.
    #[serde(skip_serializing)]
    pub propagate: Option<Ignored>,
    /// Accepted from original files and ignored.
    #[serde(skip_serializing)]
    pub annotations: Option<Ignored>,
    /// Accepted from original files and ignored.
    #[serde(skip_serializing)]
    pub description: Option<Ignored>,
    /// Accepted from original files and ignored.
    #[serde(skip_serializing)]
    pub metadata: Option<Ignored>,
}

/// One rule.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Endpoint {
    /// The path. A segment `?` stands for one segment, `*` for several.
    #[serde(rename = "URI")]
    #[schemars(extend("x-needed" = true))]
    pub uri: Option<String>,
    /// The methods, `*` for all. `GET` covers `HEAD`, unless that has a rule of its own.
    #[schemars(extend("x-needed" = true))]
    pub methods: Vec<String>,
    /// No login needed.
    pub public: bool,
    /// Who may: a list of lists of tags. One inner list must hold with all of its tags. Empty: nobody.
    pub allowed_scopes: Vec<Vec<String>>,
    /// Who may not, in the same form. Wins over `allowedScopes`.
    pub denied_scopes: Vec<Vec<String>>,
    /// The login must have been made at one of these levels (`acr`).
    #[serde(rename = "requiredACR")]
    pub required_acr: Vec<String>,
    /// The login must not be older than this.
    #[schemars(extend("x-minimum" = "1s"))]
    pub max_authentication_age: Option<TimeSpan>,
}
