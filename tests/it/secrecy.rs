//! OPS-03: no token, code, secret, key or cookie in any log, page, metric or error. Every stage of these tests is
//! looked through when it ends; here the provider does its best to get its secrets shown, and so does a careless
//! client.

use serde_json::{Value, json};

use crate::support::client::{Browser, FETCH, NAVIGATION};
use crate::support::idp::{Algorithm, Behaviour, Endpoint, Reply, find, random};
use crate::support::proxy::portcullis;
use crate::support::secrets::Secrets;
use crate::support::stage::Stage;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const BACKCHANNEL: &str = "/aporeto/oidc/backchannel-logout";

async fn stage() -> Stage {
    Stage::with(|plan| {
        plan.behaviour = Behaviour::good(Algorithm::Es256).with_logout();
        plan.set("OIDCScopes", json!(["openid", "email", "profile", "offline_access"]));
        plan.set("OIDCFrontChannelLogout", json!(true));
        plan.set("OIDCUserInfo", json!("always"));
    })
    .await
}

/// The look itself sees a secret in every form, and in part.
#[tokio::test]
async fn what_is_looked_for_is_found() {
    let secrets = Secrets::default();
    let value = "s3cr3t/v4lue+with=odd&characters";
    secrets.add(value);
    secrets.add("k-3456789012");
    for shown in [
        value,
        "Basic Y2xpZW50OnMzY3IzdC92NGx1ZSt3aXRoPW9kZCZjaGFyYWN0ZXJz",
        "s3cr3t%2Fv4lue%2Bwith%3Dodd%26characters",
        "7333637233742f76346c75652b776974683d6f646426636861726163746572",
        "…cr3t/v4lue+with=odd&chara…",
        "{\"a\":\"k-3456789012\"}",
    ] {
        assert!(secrets.found_in(&format!("a line {shown} of a log")).is_some(), "{shown}");
    }
    assert_eq!(secrets.found_in("a line without, of secrets and values with odd characters"), None);
    secrets.shown("a page".into(), format!("<p>{value}</p>"));
    assert!(secrets.found_in_shown().is_some());
}

/// Logins, refreshes and logouts as they should be, with every page on the way.
#[tokio::test]
async fn nothing_is_shown_by_what_goes_well() {
    let stage = stage().await;
    stage.idp.change(|behaviour| behaviour.token_lifetime = 2);
    let mut browser = stage.logged_in().await;
    let seen = stage.idp.refreshes();
    let refreshed = async {
        while stage.idp.refreshes() == seen {
            browser.fetch(&stage.url("/app/")).await.expect(200);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    crate::support::soon("a refresh", refreshed).await;
    stage.proxy.event("refresh").await;
    for path in ["/", "/admin/", "/strong/", "/aporeto/oidc/session", "/aporeto/oidc/logout", "/no-such-rule"]
    {
        browser.navigate(&stage.url(path)).await;
        browser.fetch(&stage.url(path)).await;
    }
    let token = stage.idp.logout_token(|_| {});
    let other = stage.logged_in().await;
    post(&stage, &format!("logout_token={token}")).await.expect(200);
    other.clone().fetch(&stage.url("/app/")).await.expect(401);
    let mut last = stage.logged_in().await;
    let logout = stage.url("/aporeto/oidc/logout");
    last.send("POST", &logout, &[("sec-fetch-site", "same-origin")], b"").await.expect(303);
    stage.idp.wait_for(&Endpoint::Revoke, 1).await;
    for path in ["/metrics", "/config", "/readyz", "/healthz"] {
        stage.admin(path).await.expect(200);
    }
    end(stage).await;
}

/// A provider that puts into its errors what it was sent, and into its tokens what it gave.
#[tokio::test]
async fn nothing_is_shown_that_a_provider_repeats() {
    let stage = stage().await;
    for (status, has_code) in [(400, true), (401, true), (500, true), (400, false), (401, false)] {
        let mut browser = stage.browser();
        let callback = browser.authorize(&stage.url("/app/")).await;
        let code = callback.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
        let told = format!("{code} {}", stage.idp.behaviour().client_secret);
        // Where an error code belongs, too.
        let error = if has_code { "invalid_grant" } else { &told };
        let body = json!({
            "error": error, "error_description": told, "error_uri": format!("https://x.test/{code}"),
            "access_token": told, "id_token": told, "refresh_token": told,
        });
        stage.idp.change(|behaviour| behaviour.token_reply = Some(Reply::json(status, &body)));
        browser.navigate(callback.as_str()).await;
    }
    stage.idp.change(|behaviour| behaviour.token_reply = None);
    // Opaque values of many lengths, and the client's secret as a word of its own.
    let opaque = [43, 40, 22, 16].map(|length| (random() + &random())[..length].to_owned());
    opaque.iter().for_each(|value| stage.secrets().add(value));
    let opaque = format!("{} {}", opaque.join(") ("), stage.idp.behaviour().client_secret);
    let repeated = |behaviour: Behaviour| {
        behaviour.callback(move |parameters| {
            let told = format!("no: {} ({opaque})", find(parameters, "state").unwrap());
            parameters.retain(|(name, _)| name == "state" || name == "iss");
            parameters.push(("error".into(), told.clone()));
            parameters.push(("error_description".into(), told.clone()));
            parameters.push(("error_uri".into(), format!("https://x.test/?{told}")));
        })
    };
    let good = stage.idp.behaviour();
    stage.idp.change(|behaviour| *behaviour = repeated(good.clone()));
    stage.login(&mut stage.browser(), "/app/").await.expect(403);
    // Tokens that are refused, each for a reason that the log names. Claims are no secrets, but for the nonce.
    for change in [
        |claims: &mut Value| claims["aud"] = json!("another"),
        |claims: &mut Value| claims["iss"] = json!("https://other.test"),
        |claims: &mut Value| claims["exp"] = json!(1),
        |claims: &mut Value| claims["sub"] = Value::Null,
        |claims: &mut Value| claims["nonce"] = json!(format!("{}x", claims["nonce"].as_str().unwrap())),
        |claims: &mut Value| claims["nonce"] = json!([claims["nonce"]]),
    ] {
        stage.idp.change(|behaviour| *behaviour = good.clone().claims(change));
        stage.login(&mut stage.browser(), "/app/").await.expect(400);
    }
    stage.idp.change(|behaviour| *behaviour = good.clone().token(|token| format!("{token}{token}")));
    stage.login(&mut stage.browser(), "/app/").await.expect(400);
    end(stage).await;
}

/// Secrets where they do not belong: other methods and paths of the callback, other hosts, Referer, other tokens.
#[tokio::test]
async fn nothing_is_shown_that_a_client_misplaces() {
    let stage = stage().await;
    let mut browser = stage.browser();
    let callback = browser.authorize(&stage.url("/app/")).await;
    let query = callback.query().unwrap().to_owned();
    for method in ["POST", "PUT", "OPTIONS", "HEAD"] {
        browser.send(method, callback.as_str(), &FETCH, query.as_bytes()).await;
    }
    for path in ["/aporeto/oidc/callback/", "/public/", "/app/", "/admin/", "/aporeto/oidc/login", "/a//b"] {
        // Who asks for an address may see it again: in a redirect, in a problem's `login`, from the application.
        let mut asker = Browser::new(&Secrets::default());
        asker.navigate(&stage.url(&format!("{path}?{query}"))).await;
        asker.fetch(&stage.url(&format!("{path}?{query}"))).await;
        asker.http2().fetch(&stage.url(&format!("{path}?{query}"))).await;
    }
    let elsewhere = callback.as_str().replace("app.test", "other.test");
    stage.browser().navigate(&elsewhere).await.expect(421);
    let referer = [NAVIGATION[0], ("referer", callback.as_str()), ("user-agent", callback.as_str())];
    stage.browser().send("GET", &stage.url("/app/"), &referer, b"").await.expect(302);
    stage.browser().send("POST", &stage.url("/app/"), &referer, b"").await.expect(401);
    // A callback that breaks in the middle, twice the same parameter, a foreign state.
    for odd in
        [format!("{query}&{query}"), query.replace("state=", "state=x"), query.replace("iss=", "iss=x")]
    {
        browser.clone().navigate(&stage.url(&format!("/aporeto/oidc/callback?{odd}"))).await;
    }
    // Cookies with something added are no sessions, and named nowhere.
    let user = stage.logged_in().await;
    let mut changed = user.clone();
    changed.jar.iter_mut().for_each(|(_, _, value)| value.push('A'));
    changed.fetch(&stage.url("/app/")).await.expect(401);
    let cookies = user.cookies(crate::support::stage::HOST);
    let bearer = [("authorization", format!("Bearer {cookies}"))];
    let bearer = [(bearer[0].0, bearer[0].1.as_str()), ("x-user", cookies.as_str())];
    user.clone().send("GET", &stage.url("/admin/"), &bearer, b"").await.expect(403);
    for change in [
        |claims: &mut Value| claims["aud"] = claims["jti"].clone(),
        |claims: &mut Value| claims["iss"] = claims["jti"].clone(),
        |claims: &mut Value| claims["nonce"] = claims["jti"].clone(),
        |claims: &mut Value| claims["events"] = json!([]),
    ] {
        let token = stage.idp.logout_token(change);
        post(&stage, &format!("logout_token={token}")).await.expect(400);
        post(&stage, &format!("logout_token={token}&logout_token={token}")).await.expect(400);
    }
    end(stage).await;
}

/// What `check` and `explain` print about the configuration that all this ran with.
#[tokio::test]
async fn nothing_is_shown_by_the_other_commands() {
    let stage = stage().await;
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), serde_yaml::to_string(&stage.config).unwrap()).unwrap();
    let path = file.path().to_str().unwrap();
    let asked = ["--service", "app", "--method", "GET", "--path", "/app/"];
    for arguments in [vec!["check", "-c", path], [&["explain", "-c", path], &asked[..]].concat()] {
        let finished = portcullis(&arguments, &[]).await;
        let text = format!("{}\n{}", finished.stdout, finished.stderr);
        assert!(text.contains("app"), "{arguments:?}: {text}");
        assert_eq!(stage.secrets().found_in(&text), None, "{arguments:?}: {text}");
    }
    stage.browser().fetch(&stage.url("/public/")).await.expect(200);
    end(stage).await;
}

async fn post(stage: &Stage, body: &str) -> crate::support::client::Answer {
    let mut idp = Browser::new(stage.secrets());
    idp.send("POST", &stage.url(BACKCHANNEL), &[FORM], body.as_bytes()).await
}

/// There were secrets, there were lines, and none of the ones is in the others.
async fn end(stage: Stage) {
    let secrets = stage.secrets().clone();
    let text = async |path: &str| stage.admin(path).await.text();
    assert!(text("/metrics").await.contains("portcullis_requests_total"));
    assert!(text("/config").await.contains("OIDCClientID"));
    let finished = stage.proxy.stop().await;
    assert_eq!(finished.code, Some(0));
    assert!(finished.stdout.lines().count() >= 3, "{finished:?}");
    assert!(
        secrets.found_in(&stage.idp.behaviour().client_secret).is_some(),
        "the look has nothing to look for"
    );
    assert_eq!(secrets.found_in(&format!("{}\n{}", finished.stdout, finished.stderr)), None);
    assert_eq!(secrets.found_in_shown(), None);
}
