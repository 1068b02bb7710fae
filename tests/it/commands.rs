//! The commands beside `run -c`: the built-in configuration, `explain`, `check`, `try`.

use std::sync::Arc;

use crate::support::client::{Browser, NAVIGATION};
use crate::support::idp::{Algorithm, Behaviour, Idp};
use crate::support::ports::free_port;
use crate::support::proxy::{Proxy, portcullis};
use crate::support::secrets::Secrets;
use crate::support::stage::Stage;

fn state() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::TempDir::new().unwrap())
}

/// The configuration of the running stage in a file.
fn file(stage: &Stage) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), serde_yaml::to_string(&stage.config).unwrap()).unwrap();
    file
}

/// `explain` says what the proxy does.
#[tokio::test]
async fn explain_agrees_with_the_proxy() {
    let stage = Stage::usual().await;
    let (file, claims) = (file(&stage), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(claims.path(), stage.idp.behaviour().user.to_string()).unwrap();
    let mut browser = stage.logged_in().await;
    for (path, decision) in [
        ("/app/x", "allow"),
        ("/staff/", "allow"),
        ("/public/", "allow"),
        ("/admin/", "deny"),
        ("/no-rule", "deny"),
        ("/closed/", "deny"),
    ] {
        let status = browser.fetch(&stage.url(path)).await.status;
        let arguments = [
            "explain",
            "-c",
            file.path().to_str().unwrap(),
            "--service",
            "app",
            "--method",
            "GET",
            "--path",
            path,
            "--claims",
            claims.path().to_str().unwrap(),
        ];
        let finished = portcullis(&arguments, &[]).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(finished.stdout.to_lowercase().contains(decision), "{path}: {}", finished.stdout);
        assert_eq!(status == 200, decision == "allow", "{path}");
        assert!(
            path != "/admin/" || finished.stdout.contains("groups=admin"),
            "what is missing: {}",
            finished.stdout
        );
    }
    let finished =
        portcullis(&["explain", "-c", file.path().to_str().unwrap(), "--path", "/a/../b"], &[]).await;
    assert!(finished.stdout.contains("400"), "{}", finished.stdout);
}

/// `check` finds what is wrong with everything real.
#[tokio::test]
async fn check_finds_what_is_wrong() {
    let stage = Stage::usual().await;
    let file = file(&stage);
    let path = file.path().to_str().unwrap();
    let good = portcullis(&["check", "-c", path], &[]).await;
    // A callback host that only the tests know may not resolve; nothing else is wrong.
    let errors = |text: &str| {
        text.lines()
            .filter(|line| line.to_lowercase().contains("error"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(errors(&good.stdout).iter().all(|line| line.contains("app.test")), "{}", good.stdout);
    stage.idp.change(|behaviour| behaviour.client_secret = "changed-at-the-provider".into());
    let bad = portcullis(&["check", "-c", path], &[]).await;
    assert_eq!(bad.code, Some(1), "{bad:?}");
    assert!(
        bad.stdout.contains("OIDCClientSecret") || bad.stdout.to_lowercase().contains("secret"),
        "{}",
        bad.stdout
    );
    stage.idp.stop().await;
    let down = portcullis(&["check", "-c", path], &[]).await;
    assert_eq!(down.code, Some(1), "{down:?}");
    assert!(down.stdout.contains(&stage.idp.issuer.replace("http://", "")), "{}", down.stdout);
    let offline = portcullis(&["check", "--offline", "-c", path], &[]).await;
    assert_eq!(offline.code, Some(0), "{offline:?}");
    for registered in ["/aporeto/oidc/logout ", "/aporeto/oidc/backchannel-logout "] {
        assert!(offline.stdout.contains(registered), "{registered}: {}", offline.stdout);
    }
    for finished in [good, bad, down, offline] {
        assert_eq!(stage.secrets().found_in(&format!("{finished:?}")), None);
    }
}

/// Environment only: the variables of the original guide.
#[tokio::test]
async fn the_environment_is_enough() {
    let idp = Idp::start(Behaviour::good(Algorithm::Rs256)).await;
    let app = crate::support::app::App::down();
    app.up().await;
    let port = free_port().to_string();
    let admin = format!("127.0.0.1:{}", free_port());
    let behaviour = idp.behaviour();
    let (url, app_port) = (format!("https://app.test:{port}"), app.port.to_string());
    let environment = [
        ("IDP_URL", idp.issuer.as_str()),
        ("CLIENT_ID", &behaviour.client_id),
        ("CLIENT_SECRET", &behaviour.client_secret),
        ("APP_URL", &url),
        ("APP_DOMAIN", "app.test"),
        ("APP_PORT", &app_port),
        ("USER_PORT", &port),
        ("USER_TAG", "email=alice@acme.com"),
        ("ADMIN_LISTEN", &admin),
    ];
    let checked = portcullis(&["check", "--offline"], &environment).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let unset = portcullis(&["run"], &environment[1..]).await;
    assert_eq!(unset.code, Some(64), "{unset:?}");
    assert!(unset.stderr.contains("IDP_URL"), "{unset:?}");
    let started = |line: &str| line.contains("\"event\":\"started\"");
    let _proxy = Proxy::launch(state(), &["run"], &environment, started).await.unwrap();
    let mut browser = Browser::new(&Secrets::default());
    browser.follow(&format!("{url}/deep?x=1")).await.expect(200);
    assert_eq!(app.last().target(), "/deep?x=1");
}

/// `try`: a URL on a line of its own, a login by a click, an allowed and a forbidden page.
#[tokio::test]
async fn try_is_the_first_impression() {
    let port = free_port().to_string();
    let url = format!("https://localhost:{port}");
    let alone = |line: &str| line.trim_end_matches('/') == url;
    let _proxy = Proxy::launch(state(), &["try", "--port", &port], &[], alone).await.unwrap();
    let mut browser = Browser::new(&Secrets::default());
    browser.navigate(&format!("{url}/public")).await.expect(200);
    let login = browser.navigate(&format!("{url}/staff")).await.expect(302).location();
    assert!(matches!(login.host_str(), Some("127.0.0.1" | "localhost" | "[::1]")), "{login}");
    let page = browser.send("GET", login.as_str(), &NAVIGATION, b"").await.expect(200);
    assert!(page.text().contains("Alice") && page.text().contains("Carol"), "{}", page.text());
    // A second one on the same port can't start.
    let second = portcullis(&["try", "--port", &port], &[]).await;
    assert_eq!(second.code, Some(1), "{second:?}");
}
