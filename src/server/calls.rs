//! The service that hyper calls: puts the handler between what the front knows and what the driver watches.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;

use super::Handler;
use super::connection::{Call, Connection, Informed, Protocol};
use super::front::{Bounds, StreamInterim, Violation};
use super::intake::{check_http2, to_connect_answer, to_handshake, to_origin_form};
use super::reply::{Reply, StreamExecutor};
use super::request_body::RequestBody;
use super::roster::Wish;

/// The calls of one connection.
pub(super) struct Calls<H> {
    pub(super) handler: Rc<H>,
    pub(super) connection: Rc<Connection>,
    pub(super) bounds: Bounds,
    /// On HTTP/2, what runs the streams.
    pub(super) streams: Option<StreamExecutor>,
}

impl<H: Handler> hyper::service::Service<Request<Incoming>> for Calls<H> {
    type Response = Response<Reply<H::Body>>;
    type Error = Infallible;
    /// Boxed for each call: hyper would otherwise keep room for it in every idle connection.
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let (call, in_flight) = self.connection.activity.begin();
        let Settled { violation, is_connect } = self.settle(&mut request, call);
        let is_http11 = request.version() == Version::HTTP_11;
        let mut told = None;
        match &self.connection.interim {
            Informed::Http1(interim) => {
                interim.begin(call, is_http11);
                if !is_http11 {
                    self.connection.wire.end_by_closing();
                }
            }
            Informed::Http2(interim) => {
                interim.begin(call);
                told = Some(Told { interim: interim.clone(), call, is_answered: false });
            }
        }
        let stream = self.streams.as_ref().map(StreamExecutor::clock);
        let (handler, connection) = (self.handler.clone(), self.connection.clone());
        // The one expectation that there is, and hyper's too.
        let waits = is_http11 && request.headers().get(header::EXPECT).is_some_and(asks_to_be_asked);
        let mut request = request.map(|incoming| {
            H::Received::from(match is_http11 {
                true => RequestBody::http11(incoming, waits),
                false => RequestBody::other(incoming),
            })
        });
        Box::pin(async move {
            let mut response = handler.handle(&mut request, connection.clone(), Call(call)).await;
            match (&connection.interim, told) {
                (Informed::Http1(interim), _) => {
                    interim.end();
                    end_connection_if_due(&connection, call, violation, &mut response);
                }
                (Informed::Http2(_), Some(told)) => told.answer(),
                (Informed::Http2(_), None) => {}
            }
            if is_connect {
                to_connect_answer(&mut response);
            }
            if let Some(stream) = &stream {
                stream.answered();
            }
            Ok(response.map(|body| Reply { body, stream, _in_flight: in_flight }))
        })
    }
}

fn asks_to_be_asked(expectation: &HeaderValue) -> bool {
    expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")
}

/// What an HTTP/2 client may be told of one call before its answer. Once the call is given up, nothing.
struct Told {
    interim: Arc<StreamInterim>,
    call: u64,
    is_answered: bool,
}

impl Told {
    fn answer(mut self) {
        self.interim.end(self.call);
        self.is_answered = true;
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if !self.is_answered {
            self.interim.forget(self.call);
        }
    }
}

/// What is known of a request before the handler gets it.
struct Settled {
    violation: Option<Violation>,
    /// It came as an extended CONNECT, and the answer must be one to that.
    is_connect: bool,
}

impl<H> Calls<H> {
    /// Brings the request into the form that the handler expects, or marks it with what it broke.
    fn settle(&self, request: &mut Request<Incoming>, call: u64) -> Settled {
        let violation = match self.connection.protocol {
            Protocol::Http1 => self.connection.wire.refusal_of(call),
            Protocol::Http2 => check_http2(request, &self.bounds).err(),
        };
        let is_connect = match violation {
            Some(violation) => {
                request.extensions_mut().insert(violation);
                false
            }
            None if self.connection.protocol == Protocol::Http1 => {
                to_origin_form(request);
                false
            }
            None => to_handshake(request),
        };
        Settled { violation, is_connect }
    }
}

/// Says `Connection: close` where nothing may follow: after a refusal, when asked to, when the process or
/// the connection is to end, and when the client is still sending a body that the answer did not wait for.
fn end_connection_if_due<B>(
    connection: &Connection,
    call: u64,
    violation: Option<Violation>,
    response: &mut Response<B>,
) {
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let unread = connection.wire.answered(call, switching);
    let asked = connection.last_answer.get() || connection.activity.wish() != Wish::Stay;
    if !switching && (unread || asked || violation.is_some()) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}
