//! What a request becomes over HTTP/2, and what its answer.

use super::*;

/// An application that tells what it got, one field a line, pseudo-header fields first.
async fn telling() -> SocketAddr {
    calls(|mut call| async move {
        let uri = &call.head.uri;
        let (scheme, authority) = (uri.scheme_str().unwrap(), uri.authority().unwrap());
        let path = uri.path_and_query().unwrap();
        let mut told = format!("{} {scheme} {authority} {path}\n", call.head.method);
        for (name, value) in &call.head.headers {
            told.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
        }
        told.push_str(&String::from_utf8(call.read_all().await).unwrap());
        let mut answer = call.answer(&[("x-app", "yes"), ("set-cookie", "a=1")]);
        answer.send_data(told.into(), true).unwrap();
    })
    .await
}

#[test]
fn a_request_has_one_authority_and_no_field_of_a_connection() {
    worker(async {
        let forwarder = http2_forwarder(telling().await);
        let mut request = post("/a%20b?c=d", "hello");
        *request.headers_mut() = fields(&[
            ("host", "app.example:8443"),
            ("connection", "x-hop, te"),
            ("x-hop", "1"),
            ("te", "gzip, trailers"),
            ("expect", "100-continue"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-user", "forged"),
            ("grpc-timeout", "5S"),
        ]);
        let answer = send(&forwarder, request).await.unwrap();
        assert_eq!((answer.version(), answer.status().as_u16()), (http::Version::HTTP_11, 200));
        assert_eq!(answer.headers()["x-app"], "yes");
        let told = text(answer).await;
        assert!(told.starts_with("POST http app.example:8443 /a%20b?c=d\n"), "{told}");
        for field in
            ["te: trailers\n", "cookie: a=1; b=2\n", "grpc-timeout: 5S\n", "content-length: 5\n", "\nhello"]
        {
            assert!(told.contains(field), "{field} {told}");
        }
        for field in ["host:", "connection:", "x-hop", "expect", "transfer-encoding", "forged"] {
            assert!(!told.contains(&format!("\n{field}")), "{field} {told}");
        }
        assert!(told.contains("x-forwarded-host: app.example:8443\n"), "{told}");
    });
}

#[test]
fn both_ends_of_a_body_are_the_frames() {
    worker(async {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let front = front(protocol, http2_forwarder(telling().await)).await;
            if protocol == Protocol::Http2 {
                let mut call = ClientCall::begin(&front, &[]).await;
                call.send("in ", false);
                call.send("parts", true);
                let mut body = call.response().await.into_body();
                let mut told = Vec::new();
                while let Some(data) = next(&mut body).await {
                    told.extend_from_slice(&data.unwrap());
                }
                let told = String::from_utf8(told).unwrap();
                assert!(told.ends_with("\nin parts") && !told.contains("content-length"), "{told}");
                continue;
            }
            let chunked = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
                           3\r\nin \r\n5\r\nparts\r\n0\r\n\r\n";
            let (head, body) = front.raw(chunked).await;
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            assert!(String::from_utf8(body).unwrap().contains("\nin parts\r\n0\r\n\r\n"));
        }
    });
}

#[test]
fn answers_without_a_body_have_none() {
    worker(async {
        let address = calls(|mut call| async move {
            let status = call.head.uri.path()[1..].parse::<u16>().unwrap_or(200);
            let mut answer = response(&[("content-length", "5")]);
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            if status == 204 {
                answer.headers_mut().remove("content-length");
            }
            let has_data = call.head.uri.query().is_some();
            let mut stream = call.reply.send_response(answer, !has_data).unwrap();
            if has_data {
                let _ = stream.send_data("wrong".into(), true);
            }
        })
        .await;
        let forwarder = http2_forwarder(address);
        for (method, target, length) in [
            (Method::HEAD, "/", Some("5")),
            (Method::GET, "/304", Some("5")),
            (Method::GET, "/204", None),
            // What came as one is left out.
            (Method::HEAD, "/?data", Some("5")),
            (Method::GET, "/304?data", Some("5")),
            (Method::GET, "/204?data", None),
        ] {
            let answer = send(&forwarder, request(method, target)).await.unwrap();
            assert!(matches!(answer.body(), Body::Empty), "{target}");
            let stated = answer.headers().get("content-length").map(|value| value.to_str().unwrap());
            assert_eq!(stated, length, "{target}");
        }
        let error = get(&forwarder, "/200").await.unwrap_err();
        assert!(matches!(error, Error::Reset(_)), "a length without a body: {error:?}");
    });
}

#[test]
fn options_for_the_whole_server_stays_what_it_is() {
    worker(async {
        let forwarder = http2_forwarder(telling().await);
        let told = text(send(&forwarder, request(Method::OPTIONS, "/")).await.unwrap()).await;
        assert!(told.starts_with("OPTIONS http app.example:8443 /\n"), "{told}");
    });
}

#[test]
fn trailers_cross_both_ways_without_what_only_heads_may_say() {
    worker(async {
        let address = calls(|mut call| async move {
            call.read_all().await;
            let trailers = call.body.trailers().await.unwrap().unwrap_or_default();
            let mut names: Vec<_> = trailers.keys().map(ToString::to_string).collect();
            names.sort();
            let mut answer = call.answer(&[("content-type", "application/grpc"), ("trailer", "x-sum")]);
            answer.send_data(names.join(",").into(), false).unwrap();
            let trailers = [
                ("grpc-status", "5"),
                ("grpc-message", "fehlt: %C3%A4"),
                ("x-sum", "7"),
                ("set-cookie", "__Host-portcullis=evil"),
                ("cache-control", "public"),
            ];
            answer.send_trailers(fields(&trailers)).unwrap();
        })
        .await;
        let front = front(Protocol::Http2, http2_forwarder(address)).await;
        let mut call = ClientCall::begin(&front, &[("te", "trailers")]).await;
        call.send("body", false);
        let sent = [
            ("x-sum", "9"),
            ("x-user", "forged"),
            ("x_groups", "x"),
            ("x-forwarded-for", "::"),
            ("cookie", "a=b"),
        ];
        call.upload.send_trailers(fields(&sent)).unwrap();
        let mut body = call.response().await.into_body();
        assert_eq!(next(&mut body).await.unwrap().unwrap(), "x-sum");
        assert!(next(&mut body).await.is_none());
        let trailers = soon(body.trailers()).await.unwrap().unwrap();
        assert_eq!(
            trailers,
            fields(&[("grpc-status", "5"), ("grpc-message", "fehlt: %C3%A4"), ("x-sum", "7")])
        );

        // HTTP/1.1 has them where the answer announces them and the client takes them.
        let front = super::super::front(Protocol::Http1, http2_forwarder(address)).await;
        let post = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close, te\r\nte: trailers\r\ntrailer: X-In\r\n\
                    transfer-encoding: chunked\r\n\r\n0\r\nx-in: 1\r\nx-user: forged\r\n\r\n";
        let (_, body) = front.raw(post).await;
        let body = String::from_utf8(body).unwrap();
        assert_eq!(body, "4\r\nx-in\r\n0\r\nx-sum: 7\r\n\r\n");
    });
}

#[test]
fn interim_answers_are_not_the_answer() {
    worker(async {
        let address = calls(|mut call| async move {
            for status in [100, 103] {
                let interim = Response::builder().status(status).body(()).unwrap();
                call.reply.send_informational(interim).unwrap();
            }
            call.finish("final");
        })
        .await;
        let answer = get(&http2_forwarder(address), "/").await.unwrap();
        assert_eq!((answer.status().as_u16(), text(answer).await.as_str()), (200, "final"));
    });
}

#[test]
fn an_answer_of_trailers_alone_is_one() {
    worker(async {
        let address = calls(|mut call| async move {
            let fields = [("content-type", "application/grpc"), ("grpc-status", "12")];
            call.reply.send_response(response(&fields), true).unwrap();
        })
        .await;
        let front = front(Protocol::Http2, http2_forwarder(address)).await;
        let mut call = ClientCall::begin(&front, &[("content-type", "application/grpc")]).await;
        call.send("message", true);
        let answer = call.response().await;
        assert_eq!(answer.headers()["grpc-status"], "12");
        assert!(answer.body().is_end_stream(), "the head is all there is");
    });
}

#[test]
fn a_websocket_is_refused_with_a_reason() {
    worker(async {
        let (front, count) = (Protocol::Http1, Rc::new(Cell::new(0)));
        let seen = count.clone();
        let address = calls(move |_| {
            seen.set(seen.get() + 1);
            async {}
        })
        .await;
        let front = super::super::front(front, http2_forwarder(address)).await;
        let (head, body) = front
            .raw(
                "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\
                  sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .await;
        assert!(head.starts_with("HTTP/1.1 501 "), "{head}");
        assert!(String::from_utf8(body).unwrap().contains("http://"));
        assert_eq!(count.get(), 0);
    });
}
