//! The way of one request: strip, stamp, send, clean.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, response,
};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::exchange::{Background, Conn, Failure, expects_continue};
use super::headers::{self, Mapped, Noted};
use super::http2::{self, Links};
use super::media::Media;
use super::overheard::Heard;
use super::pool::Pool;
use super::trailers;
use super::tunnel::{Tunnel, Tunnels};
use super::upgrade::Upgrade;
use super::upload::{Progress, Upload};
use super::{Config, Connector, Error, HttpVersion, Inform, Terms};
use crate::path::NormalPath;
use crate::policy::Permit;
use crate::web::Body;
use crate::web::body::{Carrier, Flow, PeerBody};

/// Forwards requests to one application. One for each worker and service; lives on that worker's
/// `LocalSet`, as does all that it hands out.
pub struct Forwarder {
    connector: Connector,
    /// The connections of HTTP/1.1.
    pub(super) pool: Rc<Pool>,
    /// The connections of HTTP/2, if that is spoken.
    pub(super) links: Option<Links>,
    tunnels: Rc<Tunnels>,
    mapped: Rc<Mapped>,
    own_cookies: Vec<String>,
    connect_timeout: Duration,
    response_timeout: Duration,
    body_idle_timeout: Duration,
    idle_timeout: Duration,
}

impl Forwarder {
    /// A forwarder without connections yet.
    pub fn new(config: &Config, connector: Connector) -> Self {
        let links = (config.version == HttpVersion::Http2).then(|| {
            let [connect, idle] =
                [config.connect_timeout, config.idle_timeout].map(|limit| limit.min(LONGEST));
            Links::new(connector.clone(), connect, idle)
        });
        Self {
            connector,
            pool: Rc::default(),
            links,
            tunnels: Rc::default(),
            mapped: Rc::new(Mapped::new(&config.mapped_headers)),
            own_cookies: config.own_cookies.clone(),
            connect_timeout: config.connect_timeout.min(LONGEST),
            response_timeout: config.response_timeout.min(LONGEST),
            body_idle_timeout: config.body_idle_timeout.min(LONGEST),
            idle_timeout: config.idle_timeout.min(LONGEST),
        }
    }

    /// Sends an allowed request to the application, with `path` as its target byte for byte, and returns
    /// the application's answer as the client may see it. Its body streams. Of the request nothing is left.
    ///
    /// Dropping the future, or the answer's body, ends the exchange at the application too. A request is
    /// sent again once if it is idempotent (RFC 9110 section 9.2.2), has no body, and a connection that
    /// had served before died under it; or if not a byte of it had been written, or the application says over
    /// HTTP/2 that it did not process it.
    ///
    /// A valid WebSocket handshake, or a wish for another protocol, that the application accepts with its own
    /// `101` becomes a tunnel; hyper must then be serving the client's connection with upgrades. A handshake
    /// that came over HTTP/2 (RFC 8441) looks like one over HTTP/1.1, but for its version and its missing key;
    /// so does its answer, which is never any other 2xx.
    pub fn forward<'a>(
        &'a self,
        request: &'a mut Request<Body>,
        permit: Permit,
        path: &'a NormalPath,
        terms: Terms<'a>,
    ) -> impl Future<Output = Result<Response<Body>, Error>> + 'a {
        // One permit, one request.
        let Permit { .. } = permit;
        self.send(request, path, terms)
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

    #[allow(clippy::manual_async_fn, reason = "an `async fn` has its arguments twice")]
    pub(super) fn send<'a>(
        &'a self,
        request: &'a mut Request<Body>,
        path: &'a NormalPath,
        mut terms: Terms<'a>,
    ) -> impl Future<Output = Result<Response<Body>, Error>> + 'a {
        async move {
            match &self.links {
                Some(links) => Box::pin(self.send_http2(links, request, path, &mut terms)).await,
                None => self.send_http1(request, path, &mut terms).await,
            }
        }
    }

    async fn send_http1(
        &self,
        request: &mut Request<Body>,
        path: &NormalPath,
        terms: &mut Terms<'_>,
    ) -> Result<Response<Body>, Error> {
        let mut outgoing = None;
        let (upgrade, progress) = self.write_http1(&mut outgoing, request, path, terms)?;
        let informed = terms.inform;
        let pass_on = |status, headers| self.inform(informed, status, headers);
        let inform: Option<&Heard<'_>> = informed.is_some().then_some(&pass_on);
        let (conn, answer) = self.exchange(&mut outgoing, progress.as_deref(), inform, terms).await?;

        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            upgrade.map_or(Ok(()), |upgrade| upgrade.declined(answer.status()))?;
            let (head, incoming) = answer.into_parts();
            let body = carried(conn, incoming, progress.as_deref());
            return self.answer((head, body), progress, false, terms);
        }
        let upgrade = upgrade.ok_or(Error::BadAnswer("it switches protocols without being asked to"))?;
        if progress.is_some_and(|progress| !progress.is_complete()) {
            return Err(Error::BadAnswer("it switches protocols before it has the whole request"));
        }
        Box::pin(self.open_tunnel(conn, answer, upgrade, terms)).await
    }

    /// Makes the request that goes out over HTTP/1.1 of the client's, and puts it into `outgoing`.
    fn write_http1(
        &self,
        outgoing: &mut Option<Request<Upload>>,
        request: &mut Request<Body>,
        path: &NormalPath,
        terms: &Terms<'_>,
    ) -> Result<(Option<Upgrade>, Followed), Error> {
        let noted = Noted::of(request.headers(), &self.mapped);
        let upgrade = if noted.connection { Upgrade::read(request)? } else { None };
        let Draft { uri, said, mut fields, body } = self.draft(request, path, &noted, terms)?;
        said.restate(&mut fields, HttpVersion::Http1);
        if let Some(upgrade) = &upgrade {
            upgrade.ask(&mut fields);
        }
        let held = noted.expect && expects_continue(&fields);
        let body = self.watched(body, terms, Some(self.body_idle_timeout));
        let (upload, progress) = Upload::new(body, request.version(), self.mapped.clone(), held);
        let written = outgoing.insert(Request::new(upload));
        *written.method_mut() = std::mem::take(request.method_mut());
        *written.uri_mut() = uri;
        *written.headers_mut() = fields;
        Ok((upgrade, progress))
    }

    /// What goes out, but for what is different in each version of HTTP. Of the request its method is left.
    fn draft(
        &self,
        request: &mut Request<Body>,
        path: &NormalPath,
        noted: &Noted,
        terms: &Terms<'_>,
    ) -> Result<Draft, Error> {
        let said = noted.trailers.then(|| trailers::Said::read(request.headers(), &self.mapped));
        let uri = target(request.uri(), path)?;
        let body = std::mem::take(request.body_mut());
        let mut fields = std::mem::take(request.headers_mut());
        headers::prepare(&mut fields, noted, terms);
        headers::frame(&mut fields, request.method(), &body, noted);
        Ok(Draft { uri, said: said.unwrap_or_default(), fields, body })
    }

    /// Passes on what the application says before its answer, as clean as an answer.
    fn inform(&self, inform: Option<&Inform<'_>>, status: StatusCode, mut headers: HeaderMap) {
        if let Some(inform) = inform
            && headers::clean(status, &mut headers, &self.own_cookies, false).is_ok()
        {
            inform(status, &headers);
        }
    }

    async fn send_http2(
        &self,
        links: &Links,
        request: &mut Request<Body>,
        path: &NormalPath,
        terms: &mut Terms<'_>,
    ) -> Result<Response<Body>, Error> {
        let takes_trailers = request.version() == Version::HTTP_2;
        let (outgoing, progress, is_grpc) = self.write_http2(request, path, terms)?;
        // A call says itself how long it may take (`grpc-timeout`).
        let informed = terms.inform;
        let pass_on = |status, headers| self.inform(informed, status, headers);
        let wait = http2::Wait {
            inform: informed.is_some().then_some(&pass_on),
            limit: (!is_grpc).then_some(self.response_timeout),
            end: terms.ends_at.filter(|_| is_grpc),
            lifeline: terms.lifeline.as_deref(),
        };
        let answer = call(links, outgoing, progress.as_deref(), wait).await?;
        self.answer((answer.head, answer.body), progress, takes_trailers, terms)
    }

    /// Makes the request that goes out over HTTP/2 of the client's. True: it is a gRPC call.
    fn write_http2(
        &self,
        request: &mut Request<Body>,
        path: &NormalPath,
        terms: &Terms<'_>,
    ) -> Result<(Request<Upload>, Followed, bool), Error> {
        let noted = Noted::of(request.headers(), &self.mapped);
        if noted.connection && Upgrade::read(request)?.is_some_and(|upgrade| upgrade.is_websocket()) {
            return Err(Error::NoWebSocket);
        }
        let Draft { uri, said, mut fields, body } = self.draft(request, path, &noted, terms)?;
        said.restate(&mut fields, HttpVersion::Http2);
        // `:authority` says it (RFC 9113 section 8.3.1); frames delimit the body; and a stream that is refused
        // costs no connection, so there is nothing to wait for before the body is sent. Nor has the client to: over
        // HTTP/1.1 hyper says so when it is asked for the body.
        if noted.expect
            && expects_continue(&fields)
            && let Some(inform) = terms.inform
        {
            inform(StatusCode::CONTINUE, &HeaderMap::new());
        }
        for name in [HOST, TRANSFER_ENCODING, EXPECT] {
            fields.remove(name);
        }
        let is_grpc = Media::of(&fields).is_grpc();
        // The streams of a call may be silent.
        let body = self.watched(body, terms, (!is_grpc).then_some(self.body_idle_timeout));
        let (upload, progress) = Upload::new(body, request.version(), self.mapped.clone(), false);
        let mut written = Request::new(upload);
        *written.method_mut() = std::mem::take(request.method_mut());
        *written.uri_mut() = absolute(uri, &self.connector, terms.client.authority.clone())?;
        *written.headers_mut() = fields;
        *written.version_mut() = Version::HTTP_2;
        Ok((written, progress, is_grpc))
    }

    fn watched(&self, mut body: Body, terms: &Terms<'_>, idle_limit: Option<Duration>) -> Body {
        if let Body::Peer(peer) = &mut body {
            peer.set_idle_limit(idle_limit);
            peer.belongs_to(terms.ends_at, terms.lifeline.clone());
        }
        match &terms.observer {
            Some(observer) => body.observe(Flow::FromClient, observer.clone()),
            None => body,
        }
    }

    /// An answer to `outgoing`, which is taken, on a waiting connection if there is one, else on a new one.
    async fn exchange(
        &self,
        outgoing: &mut Option<Request<Upload>>,
        progress: Option<&Progress>,
        inform: Option<&Heard<'_>>,
        terms: &Terms<'_>,
    ) -> Result<(Box<Conn>, Response<Incoming>), Error> {
        let repeatable =
            progress.is_none() && outgoing.as_ref().is_some_and(|request| request.method().is_idempotent());
        if !repeatable {
            self.pool.hear().await;
        }
        let mut now = Instant::now();
        let mut waiting = self.pool.take(now);
        // Three times at most: a waiting connection dies once, and connections are widened once.
        loop {
            let had_served = waiting.is_some();
            let mut conn = match waiting.take() {
                Some(conn) => conn,
                None => {
                    // Boxed: connecting takes much room, and is rare.
                    let io = Box::pin(self.connector.connect(self.connect_timeout)).await?;
                    let conn = Box::pin(Conn::new(io, &self.pool, self.idle_timeout)).await?;
                    now = Instant::now();
                    conn
                }
            };
            conn.keep_written(repeatable);
            let lifeline = terms.lifeline.as_deref();
            let limit = (now, self.response_timeout);
            let answer = conn.exchange(outgoing, progress, limit, inform, lifeline).await;
            *outgoing = Some(match answer {
                Ok(answer) => return Ok((conn, answer)),
                Err(Failure::Unsent(unsent, _)) if had_served => *unsent,
                Err(Failure::Died(error)) if had_served => {
                    conn.written().filter(|_| repeatable).ok_or(Error::Died(error))?
                }
                Err(Failure::TooLarge(error)) if self.pool.widen() => {
                    conn.written().filter(|_| repeatable).ok_or(Error::NotHttp(error))?
                }
                Err(failure) => return Err(failure.into_error()),
            });
        }
    }

    fn answer(
        &self,
        (mut head, body): (response::Parts, Option<PeerBody>),
        upload: Followed,
        takes_trailers: bool,
        terms: &mut Terms<'_>,
    ) -> Result<Response<Body>, Error> {
        still_there(terms)?;
        let answered = headers::clean(head.status, &mut head.headers, &self.own_cookies, terms.private)?;
        let mut body = match body {
            None => Body::Empty,
            Some(mut peer) => {
                let media = Media::of(&head.headers);
                peer.set_idle_limit((!media.may_be_silent()).then_some(self.body_idle_timeout));
                peer.set_farewell(media.farewell(takes_trailers));
                peer.belongs_to(terms.ends_at, terms.lifeline.take());
                if let Some(upload) = upload {
                    peer.set_counterpart(upload);
                }
                Body::Peer(Box::new(peer))
            }
        };
        if answered.has_odd_length() {
            headers::unify_content_length(&mut head.headers, &body);
        }
        if let Some(observer) = terms.observer.take() {
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
        upgrade: Upgrade,
        terms: &mut Terms<'_>,
    ) -> Result<Response<Body>, Error> {
        upgrade.accepted(answer.headers())?;
        still_there(terms)?;
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = answer.into_parts().0.headers;
        headers::clean(response.status(), response.headers_mut(), &self.own_cookies, false)?;
        upgrade.name(response.headers_mut());

        let has_frames = upgrade.is_websocket();
        let client = upgrade.into_client();
        let (upstream, early) = conn.into_io().await;
        let (ends_at, lifeline, observer) = (terms.ends_at, terms.lifeline.take(), terms.observer.take());
        let tunnel = Tunnel { client, upstream, early, has_frames, ends_at, lifeline, observer };
        tokio::task::spawn_local(self.tunnels.clone().run(tunnel));
        Ok(response)
    }
}

/// How far the body of a request is, if it has one.
type Followed = Option<Rc<Progress>>;

/// A request on its way out, in parts.
struct Draft {
    uri: Uri,
    said: trailers::Said,
    fields: HeaderMap,
    body: Body,
}

/// Longest timeout. Adding one to the present can't overflow.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// An answer, on a connection with room for it.
async fn call(
    links: &Links,
    mut request: Request<Upload>,
    progress: Option<&Progress>,
    wait: http2::Wait<'_>,
) -> Result<http2::Answer, Error> {
    let copy = (progress.is_none() && request.method().is_idempotent()).then(|| Repeat::of(&request));
    match links.room().await?.call(request, progress, wait).await {
        Ok(answer) => return Ok(answer),
        Err(http2::Failure::Refused(unprocessed, _)) => request = *unprocessed,
        Err(http2::Failure::Died(error)) => request = copy.ok_or(error)?.into_request(),
        Err(http2::Failure::Final(error)) => return Err(error),
    }
    links.room().await?.call(request, progress, wait).await.map_err(http2::Failure::into_error)
}

/// The body of an answer, with the connection that brings it.
fn carried(conn: Box<Conn>, incoming: Incoming, progress: Option<&Progress>) -> Option<PeerBody> {
    if incoming.is_end_stream() {
        conn.release();
        return None;
    }
    let flowing = progress.is_some_and(Progress::is_flowing);
    let carrier: Box<dyn Carrier> = if flowing { Box::new(Background::spawn(conn)) } else { conn };
    Some(PeerBody::new(incoming, Some(carrier)))
}

/// The target as HTTP/2 has it: with a scheme, and with the host that was judged in place of a Host field.
fn absolute(target: Uri, connector: &Connector, host: Option<Authority>) -> Result<Uri, Error> {
    let mut parts = target.into_parts();
    parts.scheme = Some(connector.scheme());
    parts.authority = Some(host.ok_or(Error::BadTarget)?);
    Uri::from_parts(parts).map_err(|_| Error::BadTarget)
}

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

/// What it takes to send a request once more. Only for requests without a body. Smaller and quicker to make than
/// another request, and hardly ever needed.
struct Repeat {
    method: Method,
    uri: Uri,
    version: Version,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Repeat {
    fn of(request: &Request<Upload>) -> Self {
        let headers = request.headers();
        let mut fields = Vec::with_capacity(headers.len());
        fields.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            fields,
        }
    }

    fn into_request(self) -> Request<Upload> {
        let mut request = Request::new(Upload::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        for (name, value) in self.fields {
            request.headers_mut().append(name, value);
        }
        request
    }
}

/// An answer that comes when the session has ended is nobody's.
fn still_there(terms: &Terms<'_>) -> Result<(), Error> {
    let has_ended = terms.lifeline.as_ref().is_some_and(|lifeline| lifeline.is_cut());
    if has_ended { Err(Error::SessionEnded) } else { Ok(()) }
}
