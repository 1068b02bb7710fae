//! What `try` feeds to the proxy: the text of a configuration that a person could have written.

use std::fmt::Write as _;
use std::path::Path;

use super::client::Client;
use super::user::User;

/// The pieces that `try` has started or been given.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// The issuer of the development provider.
    pub issuer: &'a str,
    /// The client that it knows the proxy as.
    pub client: &'a Client,
    /// Where the proxy serves, on loopback.
    pub exposed_port: u16,
    /// The application behind it.
    pub app: App<'a>,
    /// Where the proxy keeps its certificates and keys.
    pub state_directory: Option<&'a Path>,
    /// `admin.listen`, if the default will not do.
    pub admin_listen: Option<&'a str>,
}

/// The application behind the proxy.
#[derive(Clone, Copy, Debug)]
pub enum App<'a> {
    /// The demo app, on this port of 127.0.0.1.
    Demo {
        /// Its port.
        port: u16,
    },
    /// An application of one's own: everything in it needs one tag.
    Own {
        /// Its address, for example `http://localhost:3000`.
        url: &'a str,
        /// The tag.
        user_tag: &'a str,
    },
}

impl Setup<'_> {
    /// The service's name.
    pub const SERVICE: &'static str = "demo";

    /// The address that a person opens.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.exposed_port)
    }

    /// The configuration as YAML. It has the client's secret in it: for the parser, not for a terminal.
    pub fn config(&self) -> String {
        let mut yaml = String::new();
        if let Some(directory) = self.state_directory {
            line(&mut yaml, "stateDirectory", &directory.to_string_lossy());
        }
        if let Some(listen) = self.admin_listen {
            let _infallible = writeln!(yaml, "admin:\n  listen: {}", scalar(listen));
        }
        yaml.push_str(SERVICE_START);
        for (name, value) in [
            ("OIDCProviderURL", self.issuer),
            ("OIDCClientID", &self.client.id),
            ("OIDCClientSecret", self.client.secret.expose()),
            ("OIDCCallbackURL", &self.url()),
        ] {
            line(&mut yaml, &format!("  {name}"), value);
        }
        let _infallible = writeln!(yaml, "  exposedPort: {}", self.exposed_port);
        match self.app {
            App::Demo { port } => {
                let _infallible = writeln!(yaml, "  port: {port}");
                yaml.push_str(SERVICE_END);
                yaml.push_str(DEMO_RULES);
            }
            App::Own { url, user_tag } => {
                line(&mut yaml, "  upstream", url);
                yaml.push_str(SERVICE_END);
                yaml.push_str(OWN_RULES);
                let _infallible = writeln!(yaml, "    - [{}]", scalar(user_tag));
            }
        }
        yaml
    }
}

/// The users, told what they may do in an application of one's own by `allowed`, which asks the rules.
pub fn may_use(users: Vec<User>, allowed: impl Fn(&User) -> bool) -> Vec<User> {
    let told = |user: User| {
        let may = if allowed(&user) { "the whole application" } else { "nothing in this application" };
        User { may: may.to_owned(), ..user }
    };
    users.into_iter().map(told).collect()
}

/// Where the provider sends people back to if the proxy serves on `port`: the client's redirect address.
pub fn callback_url(port: u16) -> String {
    format!("https://localhost:{port}/aporeto/oidc/callback")
}

fn line(yaml: &mut String, name: &str, value: &str) {
    let _infallible = writeln!(yaml, "{name}: {}", scalar(value));
}

/// `text` as a scalar that means itself: JSON's strings are YAML's too, and `$` would begin a variable.
fn scalar(text: &str) -> String {
    serde_json::Value::from(text.replace('$', "$$")).to_string()
}

/// The tag that `try --app` asks for if none is named: two of the three users have it, so that both a yes and a
/// no can be seen.
pub const DEFAULT_USER_TAG: &str = "groups=staff";

const SERVICE_START: &str = "\
services:
- name: demo
  type: HTTP
  authorizationType: OIDC
";

const SERVICE_END: &str = "  hosts: [localhost, 127.0.0.1]
  listenAddress: 127.0.0.1
  OIDCScopes: [openid, profile, email, groups, offline_access]
  claimsToHTTPHeaderMappings:
  - { claimName: sub, targetHTTPHeader: X-User-Id }
  - { claimName: name, targetHTTPHeader: X-User-Name }
  - { claimName: email, targetHTTPHeader: X-User-Email }
  - { claimName: groups, targetHTTPHeader: X-User-Groups }
  exposedAPIs:
  - - httpresourcespec:name=demo
";

const OWN_RULES: &str = "\
httpResourceSpecs:
- name: everything
  associatedTags: [httpresourcespec:name=demo]
  endpoints:
  - URI: /*
    methods: ['*']
    public: false
    allowedScopes:
";

/// The rules of the demo app. Who may do what is told in `demo_users` and on its start page too.
const DEMO_RULES: &str = include_str!("demo-rules.yaml");

#[cfg(test)]
mod tests {
    use serde_yaml::Value;

    use super::*;
    use crate::devidp::demo::ROOMS;
    use crate::devidp::{RedirectUris, demo_users};

    fn config(app: App<'_>) -> Value {
        let redirect_uris = RedirectUris::Exactly(vec![callback_url(8443)]);
        let client = Client::with_fresh_secret("demo", redirect_uris).unwrap();
        let setup = Setup {
            issuer: "http://127.0.0.1:9000",
            client: &client,
            exposed_port: 8443,
            app,
            state_directory: Some(Path::new("/home/a b/\"state\": $HOME")),
            admin_listen: Some("127.0.0.1:0"),
        };
        let parsed: Value = serde_yaml::from_str(&setup.config()).unwrap();
        let service = &parsed["services"][0];
        assert_eq!(service["name"], Setup::SERVICE);
        assert_eq!(service["OIDCClientSecret"], client.secret.expose().as_str());
        assert_eq!(service["OIDCCallbackURL"], "https://localhost:8443");
        assert_eq!(service["listenAddress"], "127.0.0.1");
        assert_eq!(service["exposedPort"], 8443);
        assert_eq!(parsed["stateDirectory"], "/home/a b/\"state\": $$HOME");
        assert_eq!(parsed["admin"]["listen"], "127.0.0.1:0");
        parsed
    }

    #[test]
    fn an_application_of_ones_own_needs_exactly_the_tag() {
        for tag in [DEFAULT_USER_TAG, "a=b, c]", "x: ${HOME} #", "q=\"\\\u{e9}", "'"] {
            let parsed = config(App::Own { url: "http://localhost:3000", user_tag: tag });
            assert_eq!(parsed["services"][0]["upstream"], "http://localhost:3000");
            let endpoints = &parsed["httpResourceSpecs"][0]["endpoints"];
            assert_eq!(endpoints.as_sequence().unwrap().len(), 1);
            assert_eq!(endpoints[0]["URI"], "/*");
            assert_eq!(endpoints[0]["methods"][0], "*");
            assert_eq!(endpoints[0]["allowedScopes"][0][0], tag.replace('$', "$$"));
        }
    }

    #[test]
    fn the_start_page_tells_the_rules_and_who_meets_them() {
        let parsed = config(App::Demo { port: 9001 });
        assert_eq!(parsed["services"][0]["port"], 9001);
        let specs = parsed["httpResourceSpecs"].as_sequence().unwrap();
        let rules: Vec<&Value> =
            specs.iter().flat_map(|spec| spec["endpoints"].as_sequence().unwrap()).collect();
        for room in ROOMS {
            let subtree = format!("{}/*", room.path);
            let rule = rules.iter().find(|rule| rule["URI"] == room.path || rule["URI"] == *subtree);
            let rule = rule.unwrap_or_else(|| panic!("no rule for {}", room.path));
            let tags: Vec<&str> = room.tags.iter().copied().filter(|tag| tag.contains('=')).collect();
            if tags.is_empty() {
                assert_eq!(rule["public"], true, "{}", room.path);
            } else {
                assert_eq!(rule["allowedScopes"].as_sequence().unwrap().len(), 1, "{}", room.path);
                assert_eq!(rule["allowedScopes"][0], serde_yaml::to_value(&tags).unwrap(), "{}", room.path);
            }
            for (user, (name, open)) in demo_users().iter().zip(room.people()) {
                assert_eq!(user.name[0], name);
                let has = |tag: &&str| match tag.split_once('=').unwrap() {
                    ("groups", group) => user.groups.iter().any(|other| other == group),
                    ("email", _) => user.email_verified && user.email.ends_with("@example.com"),
                    ("sub", "*") => true,
                    other => panic!("teach this test about {other:?}"),
                };
                assert_eq!(tags.iter().all(has), open, "{name} in {}", room.path);
            }
        }
    }

    #[test]
    fn users_are_told_what_they_may_do_in_another_application() {
        let users = may_use(demo_users(), |user| user.groups.iter().any(|group| group == "staff"));
        let may: Vec<&str> = users.iter().map(|user| user.may.as_str()).collect();
        assert_eq!(may, ["the whole application", "the whole application", "nothing in this application"]);
    }
}
