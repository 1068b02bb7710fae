//! DOS-04, SES-08, SES-14, SMG-11: heads, cookies and chunks of the wrong size.

use std::time::{Duration, Instant};

use crate::wire::{self, Crowd, PATIENCE, statuses};
use crate::{HOST, Outcome, Plan};

/// Sends each of `requests` over and over, on connections of their own, and demands a status for it.
async fn refused(plan: Plan, requests: Vec<(&'static str, Vec<u8>, &'static [u16])>) -> Outcome {
    let (crowd, config) = (Crowd::new(), wire::client(b"http/1.1"));
    let requests = std::rc::Rc::new(requests);
    let places = std::rc::Rc::new(tokio::sync::Semaphore::new(16));
    let held = crowd
        .run(plan.count, |number| {
            let (crowd, config, requests, places) =
                (crowd.clone(), config.clone(), requests.clone(), places.clone());
            async move {
                let _place = places.acquire().await.map_err(|error| error.to_string())?;
                let (what, request, wanted) = &requests[number % requests.len()];
                let (mut stream, _member) = crowd.connect(plan.port, &config).await?;
                let since = Instant::now();
                // A refusal may come before the last byte was taken.
                let _ = wire::send(&mut stream, request).await;
                let read = tokio::time::timeout(PATIENCE, wire::read_to_end(&mut stream, 4096)).await;
                let answers = statuses(&read.map_err(|_| format!("{what}: no end"))?);
                match answers.first() {
                    Some(status) if wanted.contains(status) => Ok(since.elapsed()),
                    other => Err(format!("{what}: {other:?} instead of {wanted:?}")),
                }
            }
        })
        .await;
    let names: Vec<&str> = requests.iter().map(|(what, ..)| *what).collect();
    held.outcome(&crowd, |held| {
        format!(
            "{} refused or answered, the slowest in {:.0?}: {}",
            held.ended,
            held.longest,
            names.join(", ")
        )
    })
}

fn get(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\nConnection: close\r\n{fields}\r\n")
        .into_bytes()
}

/// DOS-04.
pub async fn large(plan: Plan) -> Outcome {
    let long = "x".repeat(64 * 1024);
    let field = format!("X-a: {long}\r\n");
    let fields: String = (0..1000).map(|number| format!("X-{number}: 1\r\n")).collect();
    let eights: String = (0..9).map(|number| format!("X-{number}: {}\r\n", "y".repeat(8000))).collect();
    let requests = vec![
        ("64 KiB of one field", get("/public/", &field), &[431][..]),
        ("64 KiB of nine fields", get("/public/", &eights), &[431]),
        ("1,000 fields", get("/public/", &fields), &[431]),
        ("a target of 64 KiB", get(&format!("/public/{long}"), ""), &[414]),
        ("a method of 64 KiB", format!("{long} / HTTP/1.1\r\n\r\n").into_bytes(), &[400, 414, 431, 501]),
    ];
    refused(plan, requests).await
}

/// SES-08, SES-14: to a page that wants a login, so that every cookie is looked at. What is parsed leads to the login.
pub async fn cookies(plan: Plan) -> Outcome {
    const NAME: &str = "__Host-portcullis";
    let cookie = |pairs: String| get("/app/", &format!("Cookie: {pairs}\r\n"));
    let many = |of: &dyn Fn(usize) -> String, count| (0..count).map(of).collect::<Vec<_>>().join("; ");
    // Of the form of a sealed part, and nobody's.
    let part = "A".repeat(3800);
    let part = part.as_str();
    let chunks = |count| many(&|number| format!("{}={part}", chunk(NAME, number)), count);
    let requests = vec![
        ("64 KiB of cookies", cookie(format!("a={}", "b".repeat(64 * 1024))), &[431][..]),
        ("1,000 pairs", cookie(many(&|number| format!("c{number}=d"), 1000)), &[302]),
        ("4,000 tossed sessions", cookie(many(&|_| format!("{NAME}=AAAA"), 2_500)), &[302]),
        ("separators", cookie(";=;;= ".repeat(10_000)), &[302]),
        ("quotes and bytes above ASCII", cookie("\"é=\";".repeat(8_000)), &[302, 400]),
        ("17 chunks", cookie(chunks(16)), &[302]),
        ("chunks of number 99999999", cookie(many(&|_| format!("{NAME}.99999999={part}"), 12)), &[302]),
        ("one chunk 16 times", cookie(many(&|_| format!("{NAME}={part}"), 16)), &[302]),
        ("logins under way", cookie(many(&|n| format!("{NAME}-login-{n}={part}"), 16)), &[302]),
    ];
    refused(plan, requests).await
}

fn chunk(name: &str, number: usize) -> String {
    if number == 0 { name.to_owned() } else { format!("{name}.{number}") }
}

/// SMG-11: an extension without end, and tiny chunks each with a large one.
pub async fn chunk_extensions(plan: Plan) -> Outcome {
    let head = format!("POST /public/sink HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let endless = [head.as_bytes(), b"1;", &vec![b'x'; 1 << 20]].concat();
    let tiny = format!("1;{}\r\nx\r\n", "y".repeat(4000)).repeat(256);
    let tiny = [head.as_bytes(), tiny.as_bytes()].concat();
    let zeros = [head.as_bytes(), &vec![b'0'; 1 << 20]].concat();
    let requests = vec![
        ("an extension of 1 MiB", endless, &[400, 413, 431][..]),
        ("one byte and 4 KiB of extension, again and again", tiny, &[400, 413, 431]),
        ("a size of 1 MiB of digits", zeros, &[400, 413]),
    ];
    let begun = Instant::now();
    let mut outcome = refused(plan, requests).await;
    if begun.elapsed() > Duration::from_secs(60) {
        outcome.wrong.push(format!("{:.0?} in all", begun.elapsed()));
    }
    outcome
}
