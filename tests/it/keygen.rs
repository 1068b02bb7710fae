//! `keygen`, and the rotation of session keys while people work.

use std::cell::Cell;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::client::Browser;
use crate::support::proxy::portcullis;
use crate::support::soon;
use crate::support::stage::Stage;

async fn keygen(arguments: &[&str]) -> String {
    let finished = portcullis(&[&["keygen"], arguments].concat(), &[]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished.stdout
}

/// The keys of a file, without comments.
fn keys(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[tokio::test]
async fn keys_are_printed_or_put_into_a_file() {
    let (one, other) = (keygen(&[]).await, keygen(&[]).await);
    assert!(one.starts_with("# made 20") && one.lines().count() == 2 && one != other, "{one}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    std::fs::write(&file, format!("{one}\n")).unwrap();
    let name = file.to_str().unwrap();
    let said = [keygen(&["--into", name]).await, keygen(&["--into", name, "--append"]).await];
    let keys = keys(&file);
    assert_eq!(keys.len(), 3);
    assert_eq!(keys[1], one.lines().nth(1).unwrap());
    for text in said {
        assert!(text.contains(name) && keys.iter().all(|key| !text.contains(key)), "{text}");
    }

    let wrong = directory.path().join("wrong");
    std::fs::write(&wrong, "something else\n").unwrap();
    for (arguments, code, words) in [
        (&["keygen", "--append"][..], 64, "--into"),
        (&["keygen", "--into", "/nonexistent/keys"], 1, "/nonexistent/keys"),
        (&["keygen", "--into", wrong.to_str().unwrap()], 1, "line 1 is not base64"),
    ] {
        let finished = portcullis(arguments, &[]).await;
        assert_eq!(finished.code, Some(code), "{finished:?}");
        assert!(finished.stderr.contains(words), "{finished:?}");
    }
}

/// SES-07: old, then new and old, then new, while requests come without a pause.
#[tokio::test]
async fn keys_are_rotated_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    let name = file.to_str().unwrap();
    keygen(&["--into", name]).await;
    let stage = Stage::with(|plan| {
        plan.limit("workers", json!(2));
        plan.config["session"] = json!({ "keyFile": file, "idleTimeout": "10s", "maxLifetime": "1h" });
    })
    .await;
    let mut browsers = Vec::new();
    for _ in 0..8 {
        browsers.push(stage.logged_in().await);
    }
    let of_before: Vec<Browser> = browsers.clone();

    // Everybody works on until the new key has sealed their session.
    let (rotated, served) = (Cell::new(false), Cell::new(0));
    let work = browsers.iter_mut().map(|browser| async {
        let mut sealed_before = browser.session();
        loop {
            browser.fetch(&stage.url("/app/")).await.expect(200);
            served.set(served.get() + 1);
            if !rotated.get() {
                sealed_before = browser.session();
            } else if browser.session() != sealed_before {
                return;
            }
        }
    });
    let rotate = async {
        while served.get() < 100 {
            tokio::task::yield_now().await;
        }
        keygen(&["--into", name]).await;
        let told = |line: &Value| {
            line["event"] == "key-rotation"
                && line["message"].as_str().is_some_and(|it| it.contains("session"))
        };
        stage.proxy.line("the new session key", told).await;
        rotated.set(true);
    };
    soon("new seals", async { tokio::join!(futures_util::future::join_all(work), rotate) }).await;
    for old in &of_before {
        old.clone().fetch(&stage.url("/app/")).await.expect(200);
    }

    let [new, _old] = &keys(&file)[..] else { panic!("two keys") };
    std::fs::write(&file, format!("{new}\n")).unwrap();
    let gone = async {
        while of_before[0].clone().fetch(&stage.url("/app/")).await.status == 200 {
            tokio::task::yield_now().await;
        }
    };
    soon("the old key to be gone", gone).await;
    for browser in &mut browsers {
        browser.fetch(&stage.url("/app/")).await.expect(200);
    }
    for mut old in of_before {
        old.fetch(&stage.url("/app/")).await.expect(401);
        old.follow(&stage.url("/app/")).await.expect(200);
    }
}
