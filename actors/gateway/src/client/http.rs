//! A small HTTP/1.1 client for the API of a node: one connection per request, JSON both ways.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use millpond_core::time::Span;
use millpond_env::Env;
use serde_json::Value;

/// A connection is opened, or a request answered, within this time, or the node counts as out of reach.
const PATIENCE: Span = Span::from_secs(30);
/// An answer that is longer is not read to its end: the API pages its answers.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const JSON: &str = "application/json";

#[derive(Clone, Debug)]
pub struct HttpClient {
    env: Env,
    host: String,
    port: u16,
    authorization: Option<HeaderValue>,
}

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{0} is not an address of a node: expected http://HOST:PORT")]
    BadUrl(String),
    #[error("the token has characters that a header cannot hold")]
    BadToken,
    #[error("cannot reach {host}:{port}")]
    Connect { host: String, port: u16, source: std::io::Error },
    #[error("{host}:{port} did not answer within {PATIENCE}")]
    TimedOut { host: String, port: u16 },
    #[error("the connection broke")]
    Broken(#[from] hyper::Error),
    #[error("the answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("the answer is not JSON")]
    NotJson(#[from] serde_json::Error),
    /// The node answered with an error: `{"code": …, "error": …, "hint": …}` when it was the node itself.
    #[error("{}", refusal_text(.status, .problem))]
    Refused { status: StatusCode, problem: Value },
}

impl HttpClient {
    /// `url` is `http://HOST[:PORT]`; a path in it is ignored.
    pub fn new(env: Env, url: &str, token: Option<&str>) -> Result<HttpClient, HttpError> {
        let bad = || HttpError::BadUrl(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        if uri.scheme_str().is_some_and(|scheme| scheme != "http") {
            return Err(bad());
        }
        let host = uri.host().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
        let authorization = match token {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| HttpError::BadToken)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(HttpClient { env, host, port: uri.port_u16().unwrap_or(80), authorization })
    }

    /// `path` with its query, already escaped: see [`escape`].
    pub async fn get(&self, path: &str) -> Result<Value, HttpError> {
        let response = self.send(Method::GET, path, JSON, None).await?;
        Ok(serde_json::from_slice(&read_all(response).await?)?)
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, HttpError> {
        self.post_bytes(path, JSON, body.to_string().into()).await
    }

    /// Any other method; without a body when there is nothing to say.
    pub async fn ask(&self, method: &str, path: &str, body: Option<Bytes>) -> Result<Value, HttpError> {
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| HttpError::BadUrl(method.to_owned()))?;
        let answer = read_all(self.send(method, path, JSON, body).await?).await?;
        if answer.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&answer)?) }
    }

    /// Posts a body of another kind, such as `application/x-ndjson`.
    pub async fn post_bytes(&self, path: &str, content_type: &'static str, body: Bytes) -> Result<Value, HttpError> {
        let response = self.send(Method::POST, path, content_type, Some(body)).await?;
        let answer = read_all(response).await?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Opens a stream of lines that the node keeps sending.
    pub async fn lines(&self, path: &str) -> Result<Lines, HttpError> {
        let response = self.send(Method::GET, path, JSON, None).await?;
        Ok(Lines { body: response.into_body(), buffer: Vec::new(), ended: false })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, HttpError> {
        let timed_out = |_| HttpError::TimedOut { host: self.host.clone(), port: self.port };
        let response =
            self.env.timeout(PATIENCE, self.exchange(method, path, content_type, body)).await.map_err(timed_out)??;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = self.env.timeout(PATIENCE, read_all(response)).await.map_err(timed_out)??;
        let problem = serde_json::from_slice(&text).unwrap_or_else(|_| String::from_utf8_lossy(&text).into());
        Err(HttpError::Refused { status, problem })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, HttpError> {
        let connect = |source| HttpError::Connect { host: self.host.clone(), port: self.port, source };
        let stream = self.env.net.connect(&self.host, self.port).await.map_err(connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        self.env.spawn(async move {
            // An error of the connection is the error of the request on it.
            let _ = connection.await;
        });
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.authority());
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|_| HttpError::BadUrl(format!("http://{}{path}", self.authority())))?;
        Ok(sender.send_request(request).await?)
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Lines of an answer that does not end.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    ended: bool,
}

impl Lines {
    /// The next line without its end; `None` when the node closed the stream.
    pub async fn next(&mut self) -> Result<Option<String>, HttpError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            if self.ended {
                let rest = std::mem::take(&mut self.buffer);
                return Ok((!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned()));
            }
            if self.buffer.len() > ANSWER_BYTES_MAX {
                return Err(HttpError::TooLong);
            }
            match self.body.frame().await {
                Some(frame) => self.buffer.extend_from_slice(&frame?.into_data().unwrap_or_default()),
                None => self.ended = true,
            }
        }
    }
}

async fn read_all(response: Response<Incoming>) -> Result<Vec<u8>, HttpError> {
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        all.extend_from_slice(&frame?.into_data().unwrap_or_default());
        if all.len() > ANSWER_BYTES_MAX {
            return Err(HttpError::TooLong);
        }
    }
    Ok(all)
}

fn refusal_text(status: &StatusCode, problem: &Value) -> String {
    let said = problem.get("error").unwrap_or(problem).as_str().unwrap_or_default();
    match problem.get("code").and_then(Value::as_str) {
        Some(code) => format!("the node answered {} {code}: {said}", status.as_u16()),
        None => format!("the node answered {status} {said}").trim_end().to_owned(),
    }
}

/// Escapes a part of a path or a query (RFC 3986).
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// A query string of the values that are there: `?a=1&b=2`, or nothing.
pub fn query_string(pairs: &[(&str, Option<String>)]) -> String {
    let pairs: Vec<String> =
        pairs.iter().filter_map(|(key, value)| Some(format!("{key}={}", escape(value.as_deref()?)))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

#[cfg(test)]
mod tests {
    use millpond_env::Listener;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::testing;

    /// Serves one connection: reads a request's head, sends `answer`, and gives the head back.
    async fn serve(mut listener: Box<dyn Listener>, answer: &'static str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8(head).unwrap()
    }

    async fn client(token: Option<&str>) -> (Box<dyn Listener>, HttpClient) {
        let env = testing::env();
        let listener = env.net.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let url = format!("http://{}", listener.local_addr());
        let client = HttpClient::new(env, &url, token).unwrap();
        (listener, client)
    }

    #[tokio::test]
    async fn a_question_carries_the_token_and_its_answer_is_json() {
        let (listener, client) = client(Some("secret")).await;
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"points\":[]}";
        let (head, json) = tokio::join!(serve(listener, answer), client.get("/v1/query?device_id=a%20b"));
        assert!(head.starts_with("GET /v1/query?device_id=a%20b HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("authorization: bearer secret"), "{head}");
        assert_eq!(json.unwrap(), serde_json::json!({ "points": [] }));
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_with_what_the_node_said() {
        let (listener, client) = client(None).await;
        let answer =
            "HTTP/1.1 404 Not Found\r\n\r\n{\"code\":\"MP0204\",\"error\":\"no window `warm`\",\"hint\":\"h\"}";
        let (_, refused) = tokio::join!(serve(listener, answer), client.get("/v1/windows/warm"));
        assert_eq!(refused.unwrap_err().to_string(), "the node answered 404 MP0204: no window `warm`");
    }

    #[tokio::test]
    async fn lines_come_one_by_one_until_the_node_ends_them() {
        let (listener, client) = client(None).await;
        let answer = "HTTP/1.1 200 OK\r\n\r\none\ntwo\r\nthree";
        let lines = async {
            let mut lines = client.lines("/v1/tap").await.unwrap();
            let mut all = Vec::new();
            while let Some(line) = lines.next().await.unwrap() {
                all.push(line);
            }
            all
        };
        let (_, all) = tokio::join!(serve(listener, answer), lines);
        assert_eq!(all, ["one", "two", "three"]);
    }

    #[test]
    fn parts_of_a_query_are_escaped() {
        let query =
            query_string(&[("device_id", Some("press 1/ü".into())), ("limit", None), ("step", Some("5m".into()))]);
        assert_eq!(query, "?device_id=press%201%2F%C3%BC&step=5m");
        assert_eq!(query_string(&[("a", None)]), "");
    }
}
