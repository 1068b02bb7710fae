//! A browser as far as a login at the development provider needs one.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::Url;

use crate::USERS_HOST;
use crate::wire;

/// How long a person waits.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Cookies of the service.
#[derive(Clone, Debug, Default)]
pub struct Browser {
    jar: Vec<(String, String)>,
}

/// A whole answer.
pub struct Answer {
    pub status: u16,
    pub location: String,
    set_cookies: Vec<String>,
    pub text: String,
}

impl Browser {
    /// Opens a page that wants a login, and goes all the way to it.
    pub async fn log_in(&mut self, port: u16) -> Result<(), String> {
        let page = format!("https://{USERS_HOST}:{port}/app/");
        let provider = self.navigate(&page).await?.redirected()?;
        let form = self.navigate(&provider).await?;
        let asked =
            hidden(&form.text, "request").ok_or_else(|| format!("no form at {provider}: {}", form.status))?;
        let fields = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("request", &asked)
            .append_pair("user", "alice")
            .finish();
        let action =
            Url::parse(&provider).and_then(|url| url.join("/login")).map_err(|error| error.to_string())?;
        let callback = self.send(action.as_str(), Some(fields)).await?.redirected()?;
        let back = self.navigate(&callback).await?.redirected()?;
        let back = Url::parse(&page).and_then(|url| url.join(&back)).map_err(|error| error.to_string())?;
        match self.navigate(back.as_str()).await?.status {
            200 => Ok(()),
            other => Err(format!("{other} after the login")),
        }
    }

    /// The Cookie field for the service.
    pub fn cookie(&self) -> String {
        let pairs: Vec<String> = self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    async fn navigate(&mut self, url: &str) -> Result<Answer, String> {
        self.send(url, None).await
    }

    async fn send(&mut self, url: &str, form: Option<String>) -> Result<Answer, String> {
        let exchange = self.exchange(url, form);
        let answer =
            tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| format!("no answer from {url}"))?;
        let answer = answer.map_err(|error| format!("{url}: {error}"))?;
        for line in &answer.set_cookies {
            let pair = line.split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').unwrap_or_default();
            self.jar.retain(|(known, _)| known != name);
            if !value.is_empty() && !line.contains("Max-Age=0") {
                self.jar.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(answer)
    }

    async fn exchange(&self, url: &str, form: Option<String>) -> Result<Answer, Box<dyn std::error::Error>> {
        let url = Url::parse(url)?;
        let port = url.port_or_known_default().ok_or("no port")?;
        let is_ours = url.scheme() == "https";
        let mut request = Request::builder()
            .uri(&url[url::Position::BeforePath..url::Position::AfterQuery])
            .header(header::HOST, &url[url::Position::BeforeHost..url::Position::AfterPort])
            .header(header::ACCEPT, "text/html")
            .header(header::CONNECTION, "close")
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-dest", "document");
        if is_ours && !self.jar.is_empty() {
            request = request.header(header::COOKIE, self.cookie());
        }
        if form.is_some() {
            request =
                request.method("POST").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let request = request.body(Full::new(Bytes::from(form.unwrap_or_default())))?;
        let (head, body) = if is_ours {
            let stream = wire::connect_as_usual(port, &wire::client(b"http/1.1")).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?.into_parts()
        } else {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?.into_parts()
        };
        let field = |name| head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        Ok(Answer {
            status: head.status.as_u16(),
            location: field(header::LOCATION).next().unwrap_or_default().to_owned(),
            set_cookies: field(header::SET_COOKIE).map(str::to_owned).collect(),
            text: String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned(),
        })
    }
}

impl Answer {
    fn redirected(self) -> Result<String, String> {
        match self.status {
            302 | 303 => Ok(self.location),
            other => Err(format!("{other} where a redirect was due")),
        }
    }
}

/// The value of a hidden field of a form.
fn hidden(page: &str, name: &str) -> Option<String> {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\""))?;
    let (value, _) = rest.split_once('"')?;
    Some(["&#38;=&", "&amp;=&", "&#34;=\"", "&#39;='", "&#60;=<", "&#62;=>"].iter().fold(
        value.to_owned(),
        |value, pair| {
            let (from, to) = pair.split_once('=').unwrap_or_default();
            value.replace(from, to)
        },
    ))
}
