//! A provider on loopback that behaves as it is told, for whole logins over sockets.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use url::Url;

use super::testing::{TestKey, config};
use super::*;
use crate::clock::{Clock, ManualClock, UnixTime};
use crate::secret::Secret;
use crate::web::testing::{Asked, Reply, Server};

pub(super) const NOW: u64 = 1_800_000_000;
pub(super) const CODE: &str = "the-code-that-nobody-may-see";
pub(super) const ACCESS_TOKEN: &str = "the-access-token-that-nobody-may-see";
pub(super) const REFRESH_TOKEN: &str = "the-refresh-token-that-nobody-may-see";
pub(super) const NEXT_REFRESH_TOKEN: &str = "the-next-refresh-token-that-nobody-may-see";

/// A provider on loopback.
pub(super) struct Idp {
    pub server: Server,
    pub script: Arc<Mutex<Script>>,
}

/// What it answers.
pub(super) struct Script {
    pub base: String,
    /// Replaces members of the discovery document; null removes.
    pub document: Value,
    /// The keys that it publishes.
    pub keys: Vec<Value>,
    /// The key that it signs with.
    pub key: &'static TestKey,
    /// Replaces members of the header; null removes.
    pub header: Value,
    /// Replaces claims of the ID token; null removes.
    pub claims: Value,
    /// Made of the signed token, just before it is sent.
    pub spoil: fn(String) -> String,
    pub user_info: Value,
    /// Replaces members of the answer to a code; null removes.
    pub answer: Value,
    /// Replaces members of the answer to a refresh token; null removes.
    pub refresh_answer: Value,
    /// Replaces claims of the ID token of a refresh; null removes.
    pub refresh_claims: Value,
    /// Answers in place of the ordinary ones, by path.
    pub replies: HashMap<&'static str, Reply>,
    pub nonce: String,
    pub challenge: String,
    pub accepted_secret: Option<&'static str>,
}

impl Idp {
    pub async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    pub async fn start_at(address: std::net::SocketAddr) -> Self {
        let key = TestKey::es256();
        let script = Arc::new(Mutex::new(Script {
            base: String::new(),
            document: json!({}),
            keys: TestKey::all().iter().map(TestKey::jwk).collect(),
            key,
            header: json!({}),
            claims: json!({}),
            spoil: |token| token,
            user_info: json!({"sub": "alice", "groups": ["staff"]}),
            answer: json!({}),
            refresh_answer: json!({}),
            refresh_claims: json!({}),
            replies: HashMap::new(),
            nonce: String::new(),
            challenge: String::new(),
            accepted_secret: None,
        }));
        let answering = Arc::clone(&script);
        let server = Server::plain_at(address, move |asked| answering.lock().unwrap().answer(asked)).await;
        script.lock().unwrap().base = server.url("");
        Self { server, script }
    }

    pub fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    pub fn provider_with(
        &self,
        change: impl FnOnce(&mut Config),
    ) -> (Arc<Provider>, ManualClock, Arc<Mutex<Vec<Event>>>) {
        let mut config = config(&self.server.url(""));
        change(&mut config);
        let (clock, hand) = Clock::manual(UnixTime(NOW));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heard);
        let events: Events = Arc::new(move |event| log.lock().unwrap().push(event));
        (Provider::new(config, clock, Handle::current(), events).unwrap(), hand, heard)
    }

    pub fn provider(&self) -> Arc<Provider> {
        self.provider_with(|_| ()).0
    }

    /// Begins a login and remembers what the provider would.
    pub async fn begin(&self, provider: &Arc<Provider>, begin: Begin) -> Result<(Url, Transaction), Error> {
        let (url, transaction) = provider.begin(begin).await?;
        let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
        self.script(|script| {
            script.nonce = query["nonce"].clone();
            script.challenge = query["code_challenge"].clone();
        });
        Ok((url, transaction))
    }

    /// A whole login.
    pub async fn login(&self, provider: &Arc<Provider>) -> Result<Identity, Error> {
        let (_, transaction) = self.begin(provider, asking("state")).await?;
        provider.finish(callback("state=state&code=CODE"), transaction).await
    }
}

impl Script {
    fn answer(&self, asked: &Asked) -> Reply {
        let path = asked.target.split('?').next().unwrap_or_default();
        if let Some((_, reply)) = self.replies.iter().find(|(known, _)| **known == path) {
            return reply.clone();
        }
        match path {
            "/.well-known/openid-configuration" => Reply::json(self.document()),
            "/jwks" => Reply::json(json!({"keys": self.keys})),
            "/token" => self.token(asked),
            "/userinfo" => match asked.head.contains(&format!("Bearer {ACCESS_TOKEN}")) {
                true => Reply::json(&self.user_info),
                false => Reply::status(401),
            },
            "/authorize" => Reply::redirect(302, "/login"),
            _ => Reply::status(404),
        }
    }

    pub fn document(&self) -> Value {
        let base = &self.base;
        let document = json!({
            "issuer": base,
            "authorization_endpoint": format!("{base}/authorize?tenant=a"),
            "token_endpoint": format!("{base}/token"),
            "jwks_uri": format!("{base}/jwks"),
            "userinfo_endpoint": format!("{base}/userinfo"),
            "id_token_signing_alg_values_supported": ["RS256", "PS256", "ES256", "ES384", "EdDSA", "HS256", "none"],
            "code_challenge_methods_supported": ["S256"],
        });
        patched(document, &self.document)
    }

    fn token(&self, asked: &Asked) -> Reply {
        let form: HashMap<String, String> =
            url::form_urlencoded::parse(asked.body.as_bytes()).into_owned().collect();
        if let Some(secret) = self.accepted_secret {
            let authorization = STANDARD.encode(format!("me:{secret}"));
            if !asked.head.contains(&authorization) {
                return Reply::Full(401, vec![], json!({"error": "invalid_client"}).to_string().into_bytes());
            }
        }
        if form.get("grant_type").map(String::as_str) == Some("refresh_token") {
            return self.refresh(&form);
        }
        let verifier = form.get("code_verifier").map(String::as_bytes).unwrap_or_default();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier);
        let proven = URL_SAFE_NO_PAD.encode(digest) == self.challenge;
        if form.get("code").map(String::as_str) != Some(CODE) || !proven {
            let error = json!({"error": "invalid_grant", "error_description": CODE}).to_string();
            return Reply::Full(400, vec![], error.into_bytes());
        }
        let token = (self.spoil)(self.key.sign(&self.header(), &self.claims()));
        let answer = json!({
            "access_token": ACCESS_TOKEN, "token_type": "bEaReR", "expires_in": "3600", "id_token": token,
        });
        Reply::json(patched(answer, &self.answer))
    }

    /// Takes [`REFRESH_TOKEN`] only.
    fn refresh(&self, form: &HashMap<String, String>) -> Reply {
        if form.get("refresh_token").map(String::as_str) != Some(REFRESH_TOKEN) {
            let error = json!({"error": "invalid_grant", "error_description": REFRESH_TOKEN}).to_string();
            return Reply::Full(400, vec![], error.into_bytes());
        }
        let claims = patched(self.claims(), &json!({"nonce": null}));
        let claims = patched(claims, &self.refresh_claims);
        let token = (self.spoil)(self.key.sign(&self.header(), &claims));
        let answer = json!({
            "access_token": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 600, "id_token": token,
            "refresh_token": NEXT_REFRESH_TOKEN,
        });
        Reply::json(patched(answer, &self.refresh_answer))
    }

    fn header(&self) -> Value {
        patched(self.key.header(), &self.header)
    }

    pub fn claims(&self) -> Value {
        let claims = json!({
            "iss": self.base, "sub": "alice", "aud": "me", "iat": NOW, "exp": NOW + 300, "nonce": self.nonce,
            "sid": "s1",
        });
        patched(claims, &self.claims)
    }
}

fn patched(mut value: Value, patch: &Value) -> Value {
    let object = value.as_object_mut().unwrap();
    for (name, new) in patch.as_object().unwrap() {
        match new {
            Value::Null => object.remove(name),
            new => object.insert(name.clone(), new.clone()),
        };
    }
    value
}

/// A session of the login with the nonce `n`, to refresh.
pub(super) fn stale() -> Refresh {
    Refresh {
        refresh_token: Secret::new(REFRESH_TOKEN.to_owned()),
        subject: "alice".to_owned(),
        nonce: "n".to_owned(),
        auth_time: None,
        claims: json!({"groups": ["old"]}).as_object().unwrap().clone(),
        from_user_info: BTreeSet::new(),
    }
}

pub(super) fn asking(state: &str) -> Begin {
    Begin { state: state.to_owned(), ..Begin::default() }
}

pub(super) fn callback(query: &str) -> CallbackParameters {
    CallbackParameters::parse(&query.replace("CODE", CODE)).unwrap()
}

pub(super) fn needing(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
