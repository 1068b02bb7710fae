//! DOS-06, DOS-07, DOS-08, RP-23, RP-39: requests as such, too many or too long.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::wire::{self, Crowd, Held, PATIENCE, SLACK};
use crate::{HOST, Outcome, Plan};

/// Requests that are sent before the answer to the first of them is read.
const AHEAD: usize = 100;

/// DOS-06: uploads without end to an application that is slow to take them, and to one that is not.
pub async fn endless_uploads(plan: Plan) -> Outcome {
    let (crowd, config) = (Crowd::new(), wire::client(b"http/1.1"));
    let end = Duration::from_secs_f64(plan.seconds);
    let sent = std::rc::Rc::new(std::cell::Cell::new(0));
    let held = crowd
        .run(plan.count, |number| {
            let (crowd, config, sent) = (crowd.clone(), config.clone(), sent.clone());
            async move {
                let (mut stream, _member) = crowd.connect(plan.port, &config).await?;
                let to = if number.is_multiple_of(2) { "slow" } else { "sink" };
                let head = format!(
                    "POST /public/{to} HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n"
                );
                let chunk = [b"10000\r\n", &vec![b'x'; 0x10000][..], b"\r\n"].concat();
                let writing = async {
                    stream.write_all(head.as_bytes()).await?;
                    loop {
                        stream.write_all(&chunk).await?;
                        sent.set(sent.get() + chunk.len());
                    }
                };
                let written: Result<std::io::Result<()>, _> = tokio::time::timeout(end, writing).await;
                match written {
                    Ok(Err(error)) => Err(format!("an upload was cut: {error}")),
                    _ => Ok(end),
                }
            }
        })
        .await;
    held.outcome(&crowd, |held| {
        format!("{} uploads for {:.0?}, {} MiB in all", held.ended, held.longest, sent.get() >> 20)
    })
}

/// DOS-02, DOS-06: uploads to an application that takes none of it.
pub async fn unread_uploads(plan: Plan) -> Outcome {
    let (crowd, config) = (Crowd::new(), wire::client(b"http/1.1"));
    let end = Instant::now() + Duration::from_secs_f64(plan.seconds);
    let held = crowd
        .run(plan.count, |_| {
            let (crowd, config) = (crowd.clone(), config.clone());
            async move {
                let (mut stream, _member) = crowd.connect(plan.port, &config).await?;
                let head =
                    format!("POST /public/deaf HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9999999\r\n\r\n");
                let part = vec![b'x'; 0x10000];
                let since = Instant::now();
                let writing = async {
                    stream.write_all(head.as_bytes()).await?;
                    loop {
                        stream.write_all(&part).await?;
                    }
                };
                // Whether it is cut or not: the bound is on memory.
                let _: Result<std::io::Result<()>, _> =
                    tokio::time::timeout_at(tokio::time::Instant::from_std(end), writing).await;
                Ok(since.elapsed())
            }
        })
        .await;
    held.outcome(&crowd, |held| {
        format!("{} uploads that nobody took, up to {:.1?}", held.ended, held.longest)
    })
}

/// DOS-07: many requests on one connection without waiting for answers, which come in the order of the requests.
pub async fn pipelined(plan: Plan) -> Outcome {
    let crowd = Crowd::new();
    let (stream, _member) = match crowd.connect(plan.port, &wire::client(b"http/1.1")).await {
        Ok(connected) => connected,
        Err(what) => return Held { wrong: vec![what], ..Held::default() }.outcome(&crowd, |_| String::new()),
    };
    let since = Instant::now();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = async {
        let request = |number| format!("GET /public/{number} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        for first in (0..plan.count).step_by(AHEAD) {
            let some: String = (first..plan.count.min(first + AHEAD)).map(request).collect();
            if writer.write_all(some.as_bytes()).await.is_err() || writer.flush().await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await
    };
    let reading = async {
        let (mut text, mut buffer, mut next) = (String::new(), vec![0; 64 * 1024], 0);
        while next < plan.count {
            let count = reader.read(&mut buffer).await.map_err(|error| error.to_string())?;
            if count == 0 {
                return Err(format!("the end after {next} answers"));
            }
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
            while let Some(at) = text.find("/public/") {
                let digits = &text[at + "/public/".len()..];
                let wanted = next.to_string();
                if digits.len() < wanted.len() {
                    break;
                }
                if !digits.starts_with(&wanted) {
                    return Err(format!("something else than answer {next}: {:.80}", digits));
                }
                text.drain(..at + "/public/".len() + wanted.len());
                next += 1;
            }
        }
        Ok(since.elapsed())
    };
    let result = tokio::select! {
        result = tokio::time::timeout(PATIENCE * 4, reading) => result.unwrap_or_else(|_| Err("no end".to_owned())),
        () = writing => Err("unreachable".to_owned()),
    };
    let held = match result {
        Ok(longest) => Held { ended: plan.count, longest, wrong: Vec::new() },
        Err(what) => Held { wrong: vec![what], ..Held::default() },
    };
    held.outcome(&crowd, |held| format!("{} answers in order in {:.1?}", held.ended, held.longest))
}

/// DOS-07: the same by many who read no answer.
pub async fn pipelined_unread(plan: Plan) -> Outcome {
    let (crowd, config) = (Crowd::new(), wire::client(b"http/1.1"));
    let bound = Duration::from_secs_f64(plan.body_idle_timeout);
    let held = crowd
        .run(plan.count, |_| {
            let (crowd, config) = (crowd.clone(), config.clone());
            async move {
                let (mut stream, _member) = crowd.connect(plan.port, &config).await?;
                let some = format!("GET /public/page HTTP/1.1\r\nHost: {HOST}\r\n\r\n").repeat(AHEAD);
                let since = Instant::now();
                let mut last = since;
                // Until nothing more is taken for as long as a client may take nothing.
                while let Ok(Ok(())) =
                    tokio::time::timeout(bound + SLACK, stream.write_all(some.as_bytes())).await
                {
                    last = Instant::now();
                    if since.elapsed() > PATIENCE {
                        return Err("requests are taken although no answer is".to_owned());
                    }
                }
                // The probes of TCP get a few bytes through at first, and each of them is movement.
                tokio::time::sleep(bound * 3 / 2).await;
                if wire::is_ended(&mut stream, SLACK * 2).await {
                    return Ok(last.elapsed());
                }
                Err("answers were still being sent".to_owned())
            }
        })
        .await;
    held.outcome(&crowd, |held| format!("{} connections cut that read nothing (bound {bound:?})", held.ended))
}

/// DOS-08: pages that want a login, asked for by nobody in particular.
pub async fn anonymous(plan: Plan) -> Outcome {
    let lanes = 32;
    let each = plan.count / lanes;
    let request = format!("GET /app/secret HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\n\r\n");
    let held = repeat(&plan, lanes, each, request.into_bytes(), "HTTP/1.1 302").await;
    let (crowd, held) = held;
    held.outcome(&crowd, |held| {
        format!("{} requests, each sent to log in, in {:.1?}", each * held.ended, held.longest)
    })
}

/// RP-39: back-channel logout with what is no token.
pub async fn logout_garbage(plan: Plan) -> Outcome {
    let form = format!("logout_token={}", "x".repeat(600));
    logout(plan, move |_| form.clone(), "no tokens").await
}

/// RP-23: back-channel logout with forged tokens, each under another key id.
pub async fn forged_key_ids(plan: Plan) -> Outcome {
    let issuer = format!("http://127.0.0.1:{}", plan.provider);
    let token = move |number| {
        let header = format!("{{\"alg\":\"ES256\",\"typ\":\"logout+jwt\",\"kid\":\"forged-{number}\"}}");
        let claims = format!(
            "{{\"iss\":\"{issuer}\",\"aud\":\"portcullis\",\"iat\":1,\"exp\":9999999999,\"jti\":\"{number}\",\
             \"sub\":\"alice\",\"events\":{{\"http://schemas.openid.net/event/backchannel-logout\":{{}}}}}}"
        );
        let parts = [header.as_bytes(), claims.as_bytes(), &[7; 64]].map(|part| URL_SAFE_NO_PAD.encode(part));
        format!("logout_token={}", parts.join("."))
    };
    logout(plan, token, "forged tokens").await
}

/// A thousand a second.
async fn logout(plan: Plan, form: impl Fn(usize) -> String + Clone + 'static, what: &str) -> Outcome {
    let (crowd, config) = (Crowd::new(), wire::client(b"http/1.1"));
    let lanes = 8;
    let begun = Instant::now();
    let held = crowd
        .run(lanes, |lane| {
            let (crowd, config, form) = (crowd.clone(), config.clone(), form.clone());
            async move {
                let (mut stream, _member) = crowd.connect(plan.port, &config).await?;
                let mut due = tokio::time::interval(Duration::from_millis(lanes as u64));
                let mut buffer = vec![0; 16 * 1024];
                for number in (lane..plan.count).step_by(lanes) {
                    due.tick().await;
                    let body = form(number);
                    let request = format!(
                        "POST /aporeto/oidc/backchannel-logout HTTP/1.1\r\nHost: {HOST}\r\n\
                         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    wire::send(&mut stream, request.as_bytes()).await.map_err(|error| error.to_string())?;
                    let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await;
                    let count =
                        read.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
                    let line = String::from_utf8_lossy(&buffer[..count.min(12)]).into_owned();
                    if !matches!(line.as_str(), "HTTP/1.1 400" | "HTTP/1.1 503") {
                        return Err(format!("{line:?} for what is no token"));
                    }
                }
                Ok(begun.elapsed())
            }
        })
        .await;
    held.outcome(&crowd, |held| format!("{} {what} in {:.1?}", plan.count, held.longest))
}

/// Sends a request `each` times on each of `lanes` connections, some ahead of the answers, which are counted.
async fn repeat(
    plan: &Plan,
    lanes: usize,
    each: usize,
    request: Vec<u8>,
    answer: &'static str,
) -> (Crowd, Held) {
    let (crowd, config, port) = (Crowd::new(), wire::client(b"http/1.1"), plan.port);
    let some = std::rc::Rc::new(request.repeat(10));
    let held = crowd
        .run(lanes, |_| {
            let (crowd, config, some) = (crowd.clone(), config.clone(), some.clone());
            async move {
                let (mut stream, _member) = crowd.connect(port, &config).await?;
                let since = Instant::now();
                let mut buffer = vec![0; 64 * 1024];
                let (mut answered, mut sent, mut tail) = (0, 0, String::new());
                while answered < each {
                    if sent < each && sent - answered <= 10 {
                        wire::send(&mut stream, &some).await.map_err(|error| error.to_string())?;
                        sent += 10;
                    }
                    let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await;
                    let count =
                        read.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
                    if count == 0 {
                        return Err(format!("the end after {answered} answers"));
                    }
                    tail.push_str(&String::from_utf8_lossy(&buffer[..count]));
                    let found = tail.matches("HTTP/1.1 ").count();
                    let good = tail.matches(answer).count();
                    let whole = tail.rfind("HTTP/1.1 ").map_or(0, |at| at + answer.len());
                    if whole > tail.len() {
                        continue;
                    }
                    if good < found {
                        return Err(format!("something else than {answer}"));
                    }
                    answered += good;
                    // What may be the beginning of the next answer.
                    let keep = tail.len().saturating_sub(8).max(whole.min(tail.len()));
                    let keep =
                        (keep..=tail.len()).find(|at| tail.is_char_boundary(*at)).unwrap_or(tail.len());
                    tail.drain(..keep);
                }
                Ok(since.elapsed())
            }
        })
        .await;
    (crowd, held)
}
