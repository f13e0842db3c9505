//! One HTTP POST to someone else's server.
//!
//! A connection per call: alerts are few, and their receivers are slow. Redirects are not followed: a webhook that moved is a change
//! of the configuration.

use std::{io, pin::pin};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::Full;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use millpond_core::time::Span;
use millpond_env::{Env, Stream};

#[cfg(test)]
mod tests;
mod tls;

pub use tls::Trust;

/// Why a call had no answer. The server may have received the request all the same, except where the text says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Nothing was sent.
    #[error("`{url}` is not an address to post to: {why}")]
    BadUrl { url: String, why: &'static str },
    /// Nothing was sent.
    #[error("the header `{0}` has a name or value that HTTP does not allow")]
    BadHeader(String),
    /// Nothing was sent.
    #[error("cannot connect to {host}:{port}: {cause}")]
    Connect { host: String, port: u16, cause: io::Error },
    /// Nothing was sent.
    #[error("no trusted connection to {host}: {cause}")]
    Tls { host: String, cause: io::Error },
    /// Nothing was sent.
    #[error("the certificates to trust cannot be read: {0}")]
    BadTrust(String),
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("no answer within {0}")]
    TimedOut(Span),
}

/// Posts `body` and returns the status of the answer. `https` servers must have a certificate that Mozilla's roots vouch for.
///
/// # Errors
/// When there was no answer within `timeout`. An answer of any status is not an error.
pub async fn post(
    env: &Env,
    url: &str,
    headers: &[(String, String)],
    body: Bytes,
    timeout: Span,
) -> Result<u16, WebhookError> {
    call(env, None, url, headers, body, timeout).await
}

/// As [`post`], with roots of trust of one's own beside Mozilla's.
///
/// # Errors
/// As [`post`].
pub async fn post_trusting(
    env: &Env,
    trust: &Trust,
    url: &str,
    headers: &[(String, String)],
    body: Bytes,
    timeout: Span,
) -> Result<u16, WebhookError> {
    call(env, Some(trust), url, headers, body, timeout).await
}

async fn call(
    env: &Env,
    trust: Option<&Trust>,
    url: &str,
    headers: &[(String, String)],
    body: Bytes,
    timeout: Span,
) -> Result<u16, WebhookError> {
    let target = Target::parse(url)?;
    let request = request(&target, headers, body)?;
    let answer = async {
        let stream = target.connect(env, trust).await?;
        exchange(stream, request).await
    };
    env.timeout(timeout, answer).await.unwrap_or(Err(WebhookError::TimedOut(timeout)))
}

#[derive(Debug, PartialEq)]
struct Target {
    secure: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// What stands in the `Host` header.
    authority: String,
    path: String,
}

impl Target {
    fn parse(url: &str) -> Result<Target, WebhookError> {
        let bad = |why| WebhookError::BadUrl { url: url.into(), why };
        let uri: Uri = url.parse().map_err(|_| bad("it is not a URL"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad("it does not start with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("a login belongs into a header, not into the URL"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(bad("it has no host"));
        }
        if authority.as_str() != authority.host() && authority.port_u16().is_none() {
            return Err(bad("its port is not a number up to 65535"));
        }
        Ok(Target {
            secure,
            host: host.into(),
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            authority: authority.as_str().into(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).into(),
        })
    }

    async fn connect(&self, env: &Env, trust: Option<&Trust>) -> Result<Box<dyn Stream>, WebhookError> {
        let connected = env.net.connect(&self.host, self.port).await;
        let stream =
            connected.map_err(|cause| WebhookError::Connect { host: self.host.clone(), port: self.port, cause })?;
        if !self.secure {
            return Ok(stream);
        }
        let secured = match trust {
            Some(trust) => trust.connect(&self.host, stream).await,
            None => Trust::new(env, None)?.connect(&self.host, stream).await,
        };
        secured.map_err(|cause| WebhookError::Tls { host: self.host.clone(), cause })
    }
}

fn request(target: &Target, headers: &[(String, String)], body: Bytes) -> Result<Request<Full<Bytes>>, WebhookError> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = hyper::Method::POST;
    let bad_url = |why| WebhookError::BadUrl { url: target.authority.clone(), why };
    *request.uri_mut() = target.path.parse().map_err(|_| bad_url("its path cannot be sent"))?;
    let own = [
        (header::HOST, target.authority.as_str()),
        (header::USER_AGENT, concat!("millpond/", env!("CARGO_PKG_VERSION"))),
        (header::CONNECTION, "close"),
    ];
    for (name, value) in own {
        let value = value.parse().map_err(|_| bad_url("its host cannot be sent"))?;
        request.headers_mut().insert(name, value);
    }
    for (name, value) in headers {
        let bad = || WebhookError::BadHeader(name.clone());
        let parsed: header::HeaderName = name.parse().map_err(|_| bad())?;
        // How the body is framed is not for the configuration to say.
        if parsed == header::CONTENT_LENGTH || parsed == header::TRANSFER_ENCODING || parsed == header::CONNECTION {
            return Err(bad());
        }
        request.headers_mut().insert(parsed, value.parse().map_err(|_| bad())?);
    }
    Ok(request)
}

async fn exchange(stream: Box<dyn Stream>, request: Request<Full<Bytes>>) -> Result<u16, WebhookError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = pin!(sender.send_request(request));
    let connection = pin!(connection);
    // The connection is driven here, by whoever waits for the answer; there is no task that could outlive the call.
    let answer = match select(answer, connection).await {
        Either::Left((answer, _)) => answer?,
        Either::Right((_, answer)) => answer.await?,
    };
    Ok(answer.status().as_u16())
}
