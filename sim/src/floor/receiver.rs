//! A receiver of notifications: a server that speaks as much HTTP/1.1 as a webhook needs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use millpond_env::{Env, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Floor, true_time};
use crate::witness::Notified;

/// Bytes of one request.
const REQUEST_BYTES_MAX: usize = 1 << 20;

pub(super) async fn receive(env: Env, floor: Floor, name: String) {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80);
    let Ok(mut listener) = env.net.listen(address).await else { return };
    while let Ok((stream, _)) = listener.accept().await {
        env.spawn(serve(env.clone(), floor.clone(), name.clone(), stream));
    }
}

async fn serve(env: Env, floor: Floor, name: String, mut stream: Box<dyn Stream>) {
    let mut buffer = Vec::new();
    while let Some((key, body)) = request(&mut stream, &mut buffer).await {
        let failing = floor.is_failing(&name);
        if !failing {
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let told = Notified { at: true_time(&env), receiver: name.clone(), key, body };
            floor.with_witness(|witness| witness.notifications.push(told));
        }
        let answer: &[u8] = if failing {
            b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        };
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// Key and body of the next request; `None` when the other side is gone or says what no webhook says.
async fn request(stream: &mut Box<dyn Stream>, buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let value = |wanted: &str| {
                let of = |line: &str| {
                    line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
                };
                head.lines().filter_map(of).find(|(name, _)| name == wanted).map(|(_, value)| value)
            };
            let length: usize = value("content-length")?.parse().ok()?;
            let whole = end + 4 + length;
            if buffer.len() >= whole {
                let body = buffer[end + 4..whole].to_vec();
                buffer.drain(..whole);
                return Some((value("idempotency-key").unwrap_or_default(), body));
            }
        }
        if buffer.len() > REQUEST_BYTES_MAX || stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
