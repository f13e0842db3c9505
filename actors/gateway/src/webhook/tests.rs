use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::testing::env;

/// Answers one connection with `answer` after the whole request came; returns the URL and, later, the request.
async fn server(env: &Env, answer: &'static str) -> (String, tokio::sync::oneshot::Receiver<String>) {
    let mut listener = env.net.listen(([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let url = format!("http://{}/hook?x=1", listener.local_addr());
    let (tell, told) = tokio::sync::oneshot::channel();
    env.spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(b"{\"a\":1}") {
            let mut buffer = [0; 1024];
            let read = stream.read(&mut buffer).await.expect("a request");
            request.extend_from_slice(&buffer[..read]);
        }
        stream.write_all(answer.as_bytes()).await.expect("a client that listens");
        let _ = tell.send(String::from_utf8(request).expect("text"));
        // A server that never answers stays there until the client gives up.
        let _ = stream.read(&mut [0; 1]).await;
    });
    (url, told)
}

async fn send(env: &Env, url: &str, timeout: Span) -> Result<u16, WebhookError> {
    let headers = [("content-type".to_owned(), "application/json".to_owned())];
    post(env, url, &headers, Bytes::from_static(b"{\"a\":1}"), timeout).await
}

#[tokio::test]
async fn a_post_arrives_and_its_status_comes_back() {
    let env = env();
    let (url, told) = server(&env, "HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(send(&env, &url, Span::from_secs(5)).await.expect("an answer"), 202);
    let request = told.await.expect("a request");
    assert!(request.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("content-type: application/json\r\n"), "{request}");
    assert!(request.contains("host: 127.0.0.1:"), "{request}");
    assert!(request.contains("content-length: 7\r\n"), "{request}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let env = env();
    let (url, _told) = server(&env, "").await;
    let error = send(&env, &url, Span::from_millis(50)).await.expect_err("no answer");
    assert!(matches!(error, WebhookError::TimedOut(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_speaks_no_http_is_an_error() {
    let env = env();
    let (url, _told) = server(&env, "hello there\r\n\r\n").await;
    let error = send(&env, &url, Span::from_secs(5)).await.expect_err("no answer");
    assert!(matches!(error, WebhookError::Http(_)), "{error}");
}

#[tokio::test]
async fn https_needs_a_server_that_speaks_tls() {
    let env = env();
    let (url, _told) = server(&env, "").await;
    let url = url.replace("http://", "https://");
    let error = send(&env, &url, Span::from_millis(200)).await.expect_err("no trust");
    assert!(matches!(error, WebhookError::Tls { .. } | WebhookError::TimedOut(_)), "{error}");
}

/// The authority and the certificate for 127.0.0.1 that it signed are valid for a hundred years and good for nothing else.
#[tokio::test]
async fn https_trusts_the_authority_that_it_is_given_and_no_other() {
    let env = env();
    let trust = Trust::new(&env, Some(include_bytes!("tests/authority.pem"))).expect("a certificate");
    let body = || Bytes::from_static(b"{}");
    let url = tls_server(&env).await;
    let status = post_trusting(&env, &trust, &url, &[], body(), Span::from_secs(5)).await.expect("an answer");
    assert_eq!(status, 204);
    let url = tls_server(&env).await;
    let error = post(&env, &url, &[], body(), Span::from_secs(5)).await.expect_err("a stranger's certificate");
    assert!(matches!(&error, WebhookError::Tls { .. }) && error.to_string().contains("UnknownIssuer"), "{error}");
}

/// Answers one connection with 204, in TLS.
async fn tls_server(env: &Env) -> String {
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{
            ServerConfig,
            crypto::ring,
            pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        },
    };
    let pem = include_bytes!("tests/server.pem");
    let certificate = CertificateDer::from_pem_slice(pem).expect("a certificate");
    let config = ServerConfig::builder_with_provider(std::sync::Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring knows them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::from_pem_slice(pem).expect("a key"))
        .expect("they belong together");
    let mut listener = env.net.listen(([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let url = format!("https://{}/", listener.local_addr());
    env.spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let acceptor = TlsAcceptor::from(std::sync::Arc::new(config));
        // A client without trust hangs up here.
        let Ok(mut stream) = acceptor.accept(stream).await else { return };
        let mut request = Vec::new();
        while !request.ends_with(b"{}") {
            let mut buffer = [0; 1024];
            let read = stream.read(&mut buffer).await.expect("a request");
            request.extend_from_slice(&buffer[..read]);
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("a client that listens");
        let _ = stream.read(&mut [0; 1]).await;
    });
    url
}

#[tokio::test]
async fn own_roots_must_be_certificates() {
    let env = env();
    assert!(Trust::new(&env, None).is_ok());
    let error = Trust::new(&env, Some(b"hello")).expect_err("no certificate");
    assert!(error.to_string().contains("no certificate in PEM form"), "{error}");
}

#[test]
fn addresses_are_checked() {
    let good = Target::parse("https://example.com/x").expect("a good URL");
    assert_eq!((good.secure, good.host.as_str(), good.port, good.path.as_str()), (true, "example.com", 443, "/x"));
    let v6 = Target::parse("http://[::1]:8080").expect("a good URL");
    assert_eq!((v6.host.as_str(), v6.port, v6.path.as_str(), v6.authority.as_str()), ("::1", 8080, "/", "[::1]:8080"));
    for bad in
        ["", "example.com", "ftp://x/", "http://", "http:///x", "http://me:pw@x/", "http://x:99999/", "http://x y/"]
    {
        assert!(matches!(Target::parse(bad), Err(WebhookError::BadUrl { .. })), "{bad}");
    }
}

#[tokio::test]
async fn headers_cannot_break_the_framing() {
    let env = env();
    for (name, value) in [("content-length", "1"), ("x y", "1"), ("x", "a\r\nb: c"), ("Transfer-Encoding", "chunked")] {
        let headers = [(name.to_owned(), value.to_owned())];
        let error = post(&env, "http://127.0.0.1:1/", &headers, Bytes::new(), Span::from_secs(1)).await;
        assert!(matches!(error, Err(WebhookError::BadHeader(_))), "{name}: {value}");
    }
}
