//! The people who can be signed in as.

use serde_json::{Map, Value, json};

/// One of the people on the login page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The `sub` and the name of the button.
    pub login: String,
    /// First and family name.
    pub name: [String; 2],
    /// The address.
    pub email: String,
    /// Whether the address counts: rules on `email` never hold otherwise.
    pub email_verified: bool,
    /// The values of `groups`.
    pub groups: Vec<String>,
    /// What the rules allow this user, in words for the login page and the terminal.
    pub may: String,
}

impl User {
    /// The name as people write it.
    pub fn full_name(&self) -> String {
        self.name.join(" ")
    }

    /// The first letters of the names, for a face.
    pub(super) fn initials(&self) -> String {
        self.name.iter().filter_map(|name| name.chars().next()).collect()
    }

    /// All claims about this user, as with every scope.
    pub fn claims(&self) -> Map<String, Value> {
        self.claims_for(&["profile", "email", "groups"])
    }

    /// The claims that these scopes give (OpenID Connect Core section 5.4; `groups` is our own).
    pub(super) fn claims_for<S: AsRef<str>>(&self, scopes: &[S]) -> Map<String, Value> {
        let [given, family] = &self.name;
        let mut claims = Map::new();
        claims.insert("sub".to_owned(), json!(self.login));
        for scope in scopes {
            let more = match scope.as_ref() {
                "profile" => json!({
                    "name": self.full_name(),
                    "given_name": given,
                    "family_name": family,
                    "preferred_username": self.login,
                }),
                "email" => json!({ "email": self.email, "email_verified": self.email_verified }),
                "groups" => json!({ "groups": self.groups }),
                _ => continue,
            };
            if let Value::Object(more) = more {
                claims.extend(more);
            }
        }
        claims
    }
}

/// Three people whom the rules of the demo app treat differently.
pub fn demo_users() -> Vec<User> {
    let user = |login: &str, name: [&str; 2], email_verified, groups: &[&str], may: &str| User {
        login: login.to_owned(),
        name: name.map(str::to_owned),
        email: format!("{login}@example.com"),
        email_verified,
        groups: groups.iter().copied().map(str::to_owned).collect(),
        may: may.to_owned(),
    };
    vec![
        user(
            "alice",
            ["Alice", "Archer"],
            true,
            &["staff", "admin"],
            "everything: the staff and admin pages, writing notes, and the vault with a second factor",
        ),
        user(
            "bob",
            ["Bob", "Baker"],
            true,
            &["staff"],
            "the staff page, reading notes, and the vault with a second factor; not the admin page",
        ),
        user(
            "carol",
            ["Carol", "Cole"],
            false,
            &["guests"],
            "only what is open to everybody who is signed in; her address is not verified",
        ),
    ]
}
