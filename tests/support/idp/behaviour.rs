//! How the test provider behaves: well by default, and wrong in exactly one way for each mode.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::keys::{Algorithm, Key, encode};

/// A change of a JSON document before it is sent or signed.
pub type Mutation = Arc<dyn Fn(&mut Value) + Send + Sync>;

/// A change of a signed token.
pub type Mangling = Arc<dyn Fn(String) -> String + Send + Sync>;

/// Parameters of the redirect back to the relying party.
pub type Parameters = Vec<(String, String)>;

/// What an endpoint answers instead of the usual.
#[derive(Clone, Debug)]
pub enum Reply {
    /// This.
    Fixed { status: u16, headers: Vec<(&'static str, String)>, body: Bytes },
    /// A JSON document of this many bytes and more.
    Huge(usize),
    /// A head, then a byte now and then.
    Drip,
    /// Nothing, ever.
    Hang,
    /// The connection breaks in the middle of the answer.
    Cut,
}

impl Reply {
    /// A JSON answer.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", body.to_string())
    }

    /// An answer of any type.
    pub fn text(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::Fixed { status, headers: vec![("content-type", content_type.to_owned())], body: body.into() }
    }

    /// A redirect.
    pub fn redirect(status: u16, location: &str) -> Self {
        Self::Fixed { status, headers: vec![("location", location.to_owned())], body: Bytes::new() }
    }
}

/// Where a token's signature comes from.
#[derive(Clone, Debug)]
pub enum Signer {
    /// A key, and the `alg` of the same name.
    Key(Key),
    /// HMAC-SHA256 with this secret and `alg` HS256.
    Hmac(Vec<u8>),
    /// This `alg`, and an empty signature.
    Unsigned(Option<&'static str>),
    /// A key that signs, under an `alg` that is another's.
    Disguised(Key, &'static str),
}

/// How the relying party must authenticate at the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthentication {
    Any,
    Basic,
    Post,
}

/// Everything that can be set.
#[derive(Clone)]
pub struct Behaviour {
    pub client_id: String,
    pub client_secret: String,
    pub client_authentication: ClientAuthentication,
    /// The keys in the JWKS.
    pub published: Vec<Key>,
    /// What signs ID tokens.
    pub signer: Signer,
    /// Keys that replace `published` and `signer` at the next token call.
    pub rotate_at_token: Option<Key>,
    /// The user's claims in the ID token, `sub` among them.
    pub user: Value,
    /// The claims at the UserInfo endpoint.
    pub user_info: Value,
    pub discovery: Mutation,
    pub jwks: Mutation,
    pub header: Mutation,
    pub claims: Mutation,
    pub token: Mangling,
    pub token_response: Mutation,
    /// The redirect back to the relying party.
    pub callback: Arc<dyn Fn(&mut Parameters) + Send + Sync>,
    pub discovery_reply: Option<Reply>,
    pub jwks_reply: Option<Reply>,
    pub token_reply: Option<Reply>,
    pub user_info_reply: Option<Reply>,
    /// Whether a requested `acr_values` / `max_age` is honoured.
    pub honours_step_up: bool,
    /// How many seconds its clock is ahead of this machine's.
    pub seconds_ahead: i64,
    /// How long access tokens and ID tokens live.
    pub token_lifetime: u64,
    /// Whether a refresh token is good for one use, and a second use ends all that came from its login.
    pub rotates: bool,
    /// ID tokens of refreshes, after `claims`.
    pub refresh_claims: Mutation,
    /// The answer to a good refresh.
    pub refresh_response: Mutation,
    /// What a refresh is answered instead.
    pub refresh_reply: Option<Reply>,
    /// Refreshes wait here, each for a permit of its own.
    pub refresh_barrier: Option<Arc<Semaphore>>,
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behaviour").field("signer", &self.signer).finish_non_exhaustive()
    }
}

impl Behaviour {
    /// A provider that does everything right, with one key.
    pub fn good(algorithm: Algorithm) -> Self {
        let user = json!({
            "sub": "alice",
            "name": "Alice Example",
            "email": "alice@acme.com",
            "email_verified": true,
            "groups": ["staff"],
        });
        Self {
            client_id: "client-of-the-tests".into(),
            client_secret: "secret-of-the-tests-8f14e45f".into(),
            client_authentication: ClientAuthentication::Any,
            published: vec![Key::new(algorithm, 0)],
            signer: Signer::Key(Key::new(algorithm, 0)),
            rotate_at_token: None,
            user_info: user.clone(),
            user,
            discovery: Arc::new(|_| {}),
            jwks: Arc::new(|_| {}),
            header: Arc::new(|_| {}),
            claims: Arc::new(|_| {}),
            token: Arc::new(|token| token),
            token_response: Arc::new(|_| {}),
            callback: Arc::new(|_| {}),
            discovery_reply: None,
            jwks_reply: None,
            token_reply: None,
            user_info_reply: None,
            honours_step_up: true,
            seconds_ahead: 0,
            token_lifetime: 300,
            rotates: true,
            refresh_claims: Arc::new(|_| {}),
            refresh_response: Arc::new(|_| {}),
            refresh_reply: None,
            refresh_barrier: None,
        }
    }

    /// With other keys, published and signing.
    pub fn rotate(&mut self, key: Key) {
        self.published = vec![key];
        self.signer = Signer::Key(key);
    }

    /// With claims changed before signing.
    pub fn claims(mut self, change: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.claims = Arc::new(change);
        self
    }

    /// With one claim set, or removed by `null`.
    pub fn claim(self, name: &'static str, value: Value) -> Self {
        self.claims(move |claims| set(claims, name, value.clone()))
    }

    /// With the JOSE header changed before signing.
    pub fn header(mut self, change: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.header = Arc::new(change);
        self
    }

    /// With the signed token changed.
    pub fn token(mut self, change: impl Fn(String) -> String + Send + Sync + 'static) -> Self {
        self.token = Arc::new(change);
        self
    }

    /// With the metadata changed.
    pub fn discovery(mut self, change: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.discovery = Arc::new(change);
        self
    }

    /// With the endpoints of a logout in the metadata.
    pub fn with_logout(self) -> Self {
        self.discovery(|document| {
            let issuer = document["issuer"].as_str().unwrap().to_owned();
            document["end_session_endpoint"] = json!(format!("{issuer}/end-session?tenant=a%20b"));
            document["revocation_endpoint"] = json!(format!("{issuer}/revoke"));
        })
    }

    /// With the JWKS changed.
    pub fn jwks(mut self, change: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.jwks = Arc::new(change);
        self
    }

    /// With the redirect back changed.
    pub fn callback(mut self, change: impl Fn(&mut Parameters) + Send + Sync + 'static) -> Self {
        self.callback = Arc::new(change);
        self
    }

    /// With another signature.
    pub fn signer(mut self, signer: Signer) -> Self {
        self.signer = signer;
        self
    }
}

/// Sets a member of a JSON object, or removes it when the value is null.
pub fn set(object: &mut Value, name: &str, value: Value) {
    let members = object.as_object_mut().unwrap();
    match value {
        Value::Null => drop(members.remove(name)),
        value => drop(members.insert(name.to_owned(), value)),
    }
}

/// Flips a bit in the middle of a token's signature.
pub fn break_signature(token: &str) -> String {
    use base64::Engine as _;
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signature).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    format!("{signed}.{}", encode(bytes))
}
