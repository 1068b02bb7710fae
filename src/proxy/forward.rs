//! The way of one request: strip, stamp, send, clean.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use super::exchange::{Background, Conn, Failure, expects_continue};
use super::headers::{self, Mapped};
use super::overheard::Heard;
use super::pool::Pool;
use super::tunnel::{Tunnel, Tunnels};
use super::upgrade::Handshake;
use super::upload::{Progress, Upload};
use super::{Config, Connector, Error, Terms};
use crate::path::NormalPath;
use crate::policy::Permit;
use crate::web::Body;
use crate::web::body::{Carrier, Flow, PeerBody};

/// Forwards requests to one application. One for each worker and service; lives on that worker's
/// `LocalSet`, as does all that it hands out.
pub struct Forwarder {
    connector: Connector,
    pub(super) pool: Rc<Pool>,
    tunnels: Rc<Tunnels>,
    mapped: Mapped,
    own_cookies: Vec<String>,
    connect_timeout: Duration,
    response_timeout: Duration,
    body_idle_timeout: Duration,
    idle_timeout: Duration,
}

impl Forwarder {
    /// A forwarder without connections yet.
    pub fn new(config: &Config, connector: Connector) -> Self {
        Self {
            connector,
            pool: Rc::default(),
            tunnels: Rc::default(),
            mapped: Mapped::new(&config.mapped_headers),
            own_cookies: config.own_cookies.clone(),
            connect_timeout: config.connect_timeout.min(LONGEST),
            response_timeout: config.response_timeout.min(LONGEST),
            body_idle_timeout: config.body_idle_timeout.min(LONGEST),
            idle_timeout: config.idle_timeout.min(LONGEST),
        }
    }

    /// Sends an allowed request to the application, with `path` as its target byte for byte, and returns
    /// the application's answer as the client may see it. Its body streams.
    ///
    /// Dropping the future, or the answer's body, ends the exchange at the application too. A request is
    /// sent again once if it is idempotent (RFC 9110 section 9.2.2), has no body, and a connection that
    /// had served before died under it; or if not a byte of it had been written.
    ///
    /// A valid WebSocket handshake that the application accepts with its own `101` becomes a tunnel; hyper
    /// must then be serving the client's connection with upgrades.
    pub async fn forward(
        &self,
        request: Request<Body>,
        permit: Permit,
        path: &NormalPath,
        terms: Terms<'_>,
    ) -> Result<Response<Body>, Error> {
        // One permit, one request.
        let Permit { .. } = permit;
        self.send(request, path, terms).await
    }

    /// Tunnels that are open now.
    pub fn open_tunnels(&self) -> usize {
        self.tunnels.open()
    }

    /// Ends every tunnel, and each that opens later: for the end of draining. Both sides get a proper end
    /// of stream.
    pub fn close_tunnels(&self) {
        self.tunnels.close();
    }

    pub(super) async fn send(
        &self,
        request: Request<Body>,
        path: &NormalPath,
        terms: Terms<'_>,
    ) -> Result<Response<Body>, Error> {
        let (mut head, body) = request.into_parts();
        let handshake = Handshake::read(&mut head, &body)?;
        headers::prepare(&mut head.headers, &self.mapped, &terms);
        headers::frame(&mut head.headers, &head.method, &body);
        if handshake.is_some() {
            Handshake::restore(&mut head.headers);
        }
        let held = expects_continue(&head.headers);
        let (upload, progress) = Upload::new(self.watched(body, &terms), held);

        let mut request = Request::new(upload);
        *request.method_mut() = head.method;
        *request.uri_mut() = target(&head.uri, path)?;
        *request.headers_mut() = head.headers;
        let clean_and_inform = |status, mut headers: HeaderMap| {
            if let Some(inform) = terms.inform
                && headers::clean(status, &mut headers, &self.own_cookies, false).is_ok()
            {
                inform(status, &headers);
            }
        };
        let inform: Option<&Heard<'_>> = terms.inform.is_some().then_some(&clean_and_inform);
        let (conn, answer) = self.exchange(request, progress.as_deref(), inform).await?;

        match (answer.status(), handshake) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(handshake)) => {
                self.open_tunnel(conn, answer, handshake, terms).await
            }
            (StatusCode::SWITCHING_PROTOCOLS, None) => {
                Err(Error::BadAnswer("it switches protocols without being asked to"))
            }
            _ => self.answer(conn, answer, progress.as_deref(), terms),
        }
    }

    fn watched(&self, mut body: Body, terms: &Terms<'_>) -> Body {
        if let Body::Peer(peer) = &mut body {
            peer.set_idle_limit(Some(self.body_idle_timeout));
        }
        match &terms.observer {
            Some(observer) => body.observe(Flow::FromClient, observer.clone()),
            None => body,
        }
    }

    /// An answer, on a waiting connection if there is one, else on a new one.
    async fn exchange(
        &self,
        mut request: Request<Upload>,
        progress: Option<&Progress>,
        inform: Option<&Heard<'_>>,
    ) -> Result<(Box<Conn>, Response<Incoming>), Error> {
        let repeatable = progress.is_none() && request.method().is_idempotent();
        if let Some(mut conn) = self.pool.take(!repeatable).await {
            let copy = repeatable.then(|| copy_of(&request));
            match conn.exchange(request, progress, self.response_timeout, inform).await {
                Ok(answer) => return Ok((conn, answer)),
                Err(Failure::Unsent(unsent, _)) => request = *unsent,
                Err(Failure::Died(error)) => request = copy.ok_or(Error::Died(error))?,
                Err(Failure::Final(error)) => return Err(error),
            }
        }
        let io = self.connector.connect(self.connect_timeout).await?;
        let mut conn = Conn::new(io, Rc::downgrade(&self.pool), self.idle_timeout).await?;
        match conn.exchange(request, progress, self.response_timeout, inform).await {
            Ok(answer) => Ok((conn, answer)),
            Err(Failure::Unsent(_, error) | Failure::Died(error)) => Err(Error::Died(error)),
            Err(Failure::Final(error)) => Err(error),
        }
    }

    fn answer(
        &self,
        conn: Box<Conn>,
        answer: Response<Incoming>,
        progress: Option<&Progress>,
        terms: Terms<'_>,
    ) -> Result<Response<Body>, Error> {
        let (mut head, incoming) = answer.into_parts();
        headers::clean(head.status, &mut head.headers, &self.own_cookies, terms.private)?;
        let mut body = if incoming.is_end_stream() {
            conn.release();
            Body::Empty
        } else {
            let flowing = progress.is_some_and(Progress::is_flowing);
            let carrier: Box<dyn Carrier> = if flowing { Box::new(Background::spawn(conn)) } else { conn };
            let mut peer = PeerBody::new(incoming, Some(carrier));
            peer.set_idle_limit((!is_event_stream(&head.headers)).then_some(self.body_idle_timeout));
            peer.set_end(terms.ends_at);
            Body::Peer(peer)
        };
        headers::unify_content_length(&mut head.headers, &body);
        if let Some(observer) = terms.observer {
            body = body.observe(Flow::ToClient, observer);
        }
        // Ours, not the application's.
        head.version = Version::HTTP_11;
        Ok(Response::from_parts(head, body))
    }

    async fn open_tunnel(
        &self,
        conn: Box<Conn>,
        answer: Response<Incoming>,
        handshake: Handshake,
        terms: Terms<'_>,
    ) -> Result<Response<Body>, Error> {
        let client = handshake.verify(answer.headers())?;
        let (upstream, early) = conn.into_io().await;
        let tunnel = Tunnel { client, upstream, early, ends_at: terms.ends_at, observer: terms.observer };
        tokio::task::spawn_local(self.tunnels.clone().run(tunnel));

        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = answer.into_parts().0.headers;
        headers::clean(response.status(), response.headers_mut(), &self.own_cookies, false)?;
        Handshake::restore(response.headers_mut());
        Ok(response)
    }
}

/// Longest timeout. Adding one to the present can't overflow.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The path that was judged is the path that is sent. Nearly always it is the client's own, and shared
/// with it.
fn target(sent: &Uri, judged: &NormalPath) -> Result<Uri, Error> {
    let judged = judged.as_str();
    let target = match sent.path_and_query() {
        Some(same) if same.as_str() == judged => same.clone(),
        _ => PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(judged.as_bytes()))
            .ok()
            .filter(|target| target.as_str() == judged)
            .ok_or(Error::BadTarget)?,
    };
    Ok(Uri::from(target))
}

/// The same request once more. Only for requests without a body.
fn copy_of(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Server-sent events are silent until there is one.
fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .get(..EVENT_STREAM.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(EVENT_STREAM))
    })
}

const EVENT_STREAM: &[u8] = b"text/event-stream";
