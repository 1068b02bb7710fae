//! Tokens and keys over sockets: which are believed, and what is asked of the provider for it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use crate::web::testing::Reply;

use super::testing::{TestKey, token_of};
use super::testing_idp::{ACCESS_TOKEN, CODE, Idp, NOW, Script, asking, callback};
use super::*;

#[tokio::test]
async fn bad_id_tokens_end_the_login_and_nothing_more_is_asked() {
    type Change = fn(&mut Script);
    let rows: Vec<(&str, &str, Change)> = vec![
        ("RP-02", "iss", |s| s.claims = json!({"iss": "https://evil.example"})),
        ("RP-03", "sub", |s| s.claims = json!({"sub": null})),
        ("RP-04", "aud", |s| s.claims = json!({"aud": "other"})),
        ("RP-05", "azp", |s| s.claims = json!({"azp": "other"})),
        ("RP-05", "aud", |s| s.claims = json!({"aud": ["me", "other"]})),
        ("RP-06", "claim", |s| s.claims = json!({"iat": null})),
        ("RP-07", "exp", |s| s.claims = json!({"exp": NOW - 301})),
        ("RP-08", "nbf", |s| s.claims = json!({"nbf": NOW + 600})),
        ("RP-11", "alg", |s| s.header = json!({"alg": "none"})),
        ("RP-11", "alg", |s| {
            s.header = json!({"alg": "none"});
            s.spoil = |token| format!("{}.", token.rsplit_once('.').unwrap().0);
        }),
        ("RP-12", "signature", |s| {
            s.spoil = |token| {
                let (signed, signature) = token.rsplit_once('.').unwrap();
                let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
                signature[0] ^= 1;
                format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
            }
        }),
        ("RP-12", "malformed", |s| s.spoil = |token| format!("{token}.a.b")),
        ("RP-13", "alg", |s| s.header = json!({"alg": "HS256"})),
        ("RP-15", "kid", |s| s.header = json!({"kid": "../../dev/null", "jku": "http://127.0.0.1:1/"})),
        ("RP-17", "nonce", |s| s.claims = json!({"nonce": "another"})),
        ("RP-17", "nonce", |s| s.claims = json!({"nonce": null})),
        ("crit", "crit", |s| s.header = json!({"crit": ["exp"]})),
        ("typ", "typ", |s| s.header = json!({"typ": "at+jwt"})),
        ("no token", "no_id_token", |s| s.spoil = |_| String::new()),
        ("DOS-09", "malformed", |s| s.spoil = |_| "x".repeat(900 * 1024)),
    ];
    for (row, code, change) in rows {
        let idp = Idp::start().await;
        idp.script(change);
        let (provider, ..) = idp.provider_with(|config| config.user_info = UserInfoMode::Always);
        let error = idp.login(&provider).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (Kind::Refused, code), "{row}: {error}");
        assert_eq!(idp.server.count("/token"), 1, "{row}");
        assert_eq!(idp.server.count("/userinfo"), 0, "{row}");
        // Only an unknown key id is worth one more look at the keys.
        assert!(idp.server.count("/jwks") <= 1 + usize::from(code == "kid"), "{row}");
        assert!(!format!("{error} {error:?}").contains(CODE), "{row}");
    }
}

#[tokio::test]
async fn rp_09_tokens_without_kid() {
    let idp = Idp::start().await;
    idp.script(|script| {
        script.header = json!({"kid": null});
        script.keys = vec![TestKey::es256().jwk()];
    });
    let provider = idp.provider();
    idp.login(&provider).await.unwrap();

    // Several keys, some for other uses: the right one is found.
    let other = TestKey::new("ES256", "other");
    let mut encryption = TestKey::es256().jwk();
    encryption["use"] = json!("enc");
    idp.script(|script| {
        script.keys = vec![
            encryption.clone(),
            other.jwk(),
            TestKey::rs256().jwk(),
            json!({"kty": "AKP"}),
            TestKey::es256().jwk(),
        ];
    });
    idp.login(&idp.provider()).await.unwrap();

    // The right key only for encryption: not found.
    idp.script(|script| script.keys = vec![encryption, other.jwk()]);
    assert_eq!(idp.login(&idp.provider()).await.unwrap_err().code(), "signature");
}

#[tokio::test]
async fn rp_13_shared_keys_only_where_configured() {
    let hs256 = |secret: &[u8], script: &Script| {
        let header = json!({"alg": "HS256", "typ": "JWT"});
        let signed = format!("{}.{}", token_of(&header), token_of(&script.claims()));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        let signature = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let rsa = TestKey::rs256();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(rsa.public_der())
    );
    let secrets: [(&str, Vec<u8>, bool); 5] = [
        ("client secret", b"client-secret".to_vec(), true),
        ("DER", rsa.public_der(), false),
        ("PEM", pem.into_bytes(), false),
        ("JWK", rsa.jwk().to_string().into_bytes(), false),
        ("empty", Vec::new(), false),
    ];
    for (name, secret, right) in secrets {
        for configured in [false, true] {
            let idp = Idp::start().await;
            idp.script(|script| script.keys = vec![rsa.jwk()]);
            let (provider, ..) = idp.provider_with(|config| {
                config.signing_algorithms =
                    configured.then(|| vec![SigningAlgorithm::Hs256, SigningAlgorithm::Rs256]);
            });
            let (_, transaction) = idp.begin(&provider, asking("s")).await.unwrap();
            idp.script(|script| {
                let token = hs256(&secret, script);
                let answer = json!({"access_token": ACCESS_TOKEN, "token_type": "Bearer", "id_token": token});
                script.replies.insert("/token", Reply::json(answer));
            });
            let outcome = provider.finish(callback("state=s&code=CODE"), transaction).await;
            assert_eq!(outcome.is_ok(), right && configured, "{name} {configured}");
        }
    }
}

#[tokio::test]
async fn rp_22_and_rp_23_keys_are_followed_and_floods_are_not() {
    let idp = Idp::start().await;
    let (provider, _, heard) = idp.provider_with(|_| ());
    idp.login(&provider).await.unwrap();
    assert_eq!(idp.server.count("/jwks"), 1);

    // Rotated just before signing, and many logins at once see it.
    let new: &'static TestKey = Box::leak(Box::new(TestKey::new("ES256", "new")));
    let (_, transaction) = idp.begin(&provider, asking("s")).await.unwrap();
    idp.script(|script| {
        script.keys = vec![new.jwk()];
        script.key = new;
    });
    let logins = (0..20).map(|_| provider.finish(callback("state=s&code=CODE"), transaction.clone()));
    for outcome in futures_util::future::join_all(logins).await {
        outcome.unwrap();
    }
    assert_eq!(idp.server.count("/jwks"), 2);
    let changes =
        heard.lock().unwrap().iter().filter(|event| matches!(event, Event::KeysChanged { .. })).count();
    assert_eq!(changes, 2);

    // The old key is not believed any more.
    idp.script(|script| script.key = TestKey::es256());
    assert_eq!(idp.login(&provider).await.unwrap_err().code(), "kid");
    let before = idp.server.count("/jwks");

    // Made-up ids cost next to nothing, and a login with a known key still works.
    for i in 0..50 {
        idp.script(|script| script.header = json!({"kid": format!("forged-{i}")}));
        assert_eq!(idp.login(&provider).await.unwrap_err().code(), "kid");
    }
    assert!(idp.server.count("/jwks") <= before + 1 && idp.server.count("/jwks") <= 1 + 2);
    idp.script(|script| {
        script.header = json!({});
        script.key = new;
    });
    idp.login(&provider).await.unwrap();
}

#[tokio::test]
async fn good_keys_survive_bad_answers() {
    for bad in [
        Reply::status(500),
        Reply::json("{\"keys\":[]}"),
        Reply::json("<html>"),
        Reply::Hangup,
        Reply::json("{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}"),
    ] {
        let idp = Idp::start().await;
        let provider = idp.provider();
        idp.login(&provider).await.unwrap();
        idp.script(|script| {
            script.replies.insert("/jwks", bad.clone());
            script.header = json!({"kid": "unknown"});
        });
        let error = idp.login(&provider).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (Kind::Unavailable, "jwks"), "{bad:?}: {error}");
        idp.script(|script| script.header = json!({}));
        idp.login(&provider).await.unwrap();
    }
}
