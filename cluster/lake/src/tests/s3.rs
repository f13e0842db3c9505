//! The lake in a bucket: on a server that speaks S3, when there is one in the path.

#![allow(clippy::disallowed_methods, reason = "a server of another program needs a port and a folder")]

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use object_store::aws::AmazonS3Builder;

use super::*;

/// Of s3s-fs.
const ARGS: [&str; 8] = ["--host", "127.0.0.1", "--port", "PORT", "--access-key", "key", "--secret-key", "secret"];

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server with an empty bucket `lake`, and where it listens; `None` without the program.
fn server(folder: &std::path::Path, program: &str, args: &[&str]) -> Option<(Server, String)> {
    let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port().to_string();
    std::fs::create_dir_all(folder.join("lake")).ok()?;
    let args = args.iter().map(|arg| arg.replace("PORT", &port));
    let child = Command::new(program).args(args).arg(folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let (server, endpoint) = match child {
        Ok(child) => (Server(child), format!("http://127.0.0.1:{port}")),
        Err(_) => {
            println!("not tested: S3, because {program} is not in the path");
            return None;
        }
    };
    let asked = ["-s", "--retry", "30", "--retry-delay", "1", "--retry-connrefused", &endpoint];
    assert!(
        Command::new("curl").args(asked).output().is_ok_and(|out| out.status.success()),
        "{program} did not come up"
    );
    Some((server, endpoint))
}

fn bucket(endpoint: &str) -> Arc<dyn ObjectStore> {
    let bucket = AmazonS3Builder::new().with_endpoint(endpoint).with_allow_http(true).with_region("us-east-1");
    let bucket = bucket.with_bucket_name("lake").with_access_key_id("key").with_secret_access_key("secret");
    Arc::new(bucket.build().unwrap())
}

/// Small row groups and pages, but parts as S3 takes them.
async fn open(store: Arc<dyn ObjectStore>) -> Lake {
    let cut = Cut { part: Cut::default().part, ..small().cut };
    Lake::open(store, Options { cut, ..small() }).await.expect("the lake opens")
}

fn on_the_network(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn a_lake_in_a_bucket_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_server, endpoint)) = server(folder.path(), "s3s-fs", &ARGS) else { return };
    let store = || bucket(&endpoint);
    on_the_network(async {
        let (a, b) = (open(store()).await, open(store()).await);
        let pieces = records(1, 12);
        a.append(&pieces[..6], &[taken(1, 6)], T0).await.unwrap();
        // Knows nothing of the other, and loses cleanly.
        b.append(&pieces[3..], &[taken(4, 12)], T0).await.unwrap();
        b.compact(T0 + 10 * DAY_MS).await.unwrap();
        assert_rows(&b, &pieces).await;
        assert_rows(&open(store()).await, &pieces).await;
        b.forget(TENANT, "press-1", T0 + 10 * DAY_MS).await.unwrap();
        for number in 0..crate::manifest::KEPT {
            b.append(&[], &[taken(1000 + number * 2, 1000 + number * 2)], T0 + 10 * DAY_MS).await.unwrap();
        }
        assert!(b.sweep(T0 + 20 * DAY_MS).await.unwrap().files > 0);
        assert_eq!(b.prove_forgotten("press-1").await.unwrap(), []);
    });
}

#[test]
fn a_large_file_goes_to_a_bucket_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_server, endpoint)) = server(folder.path(), "s3s-fs", &ARGS) else { return };
    let mut x = 1_u64;
    let mut word = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:08x}", x >> 32)
    };
    let mut event = |seq: u64| {
        let note: String = (0..64).map(|_| word()).collect();
        let cells = vec![("note", Cell::Text(note.into()))];
        Event { device: "press-1".into(), ms: T0 + seq as i64 * 1000, seq: Some(seq), cells }
    };
    let events: Vec<Event> = (0..50_000).map(&mut event).collect();
    on_the_network(async {
        let lake = Lake::open(bucket(&endpoint), Options::default()).await.unwrap();
        let pieces = [piece(1, &events)];
        lake.append(&pieces, &[taken(1, 1)], T0).await.unwrap();
        let file = &lake.manifest().files[0];
        assert!(file.bytes > Cut::default().part as u64, "{} bytes are one part", file.bytes);
        assert_rows(&Lake::open(bucket(&endpoint), Options::default()).await.unwrap(), &pieces).await;
    });
}

#[test]
fn a_server_that_writes_over_what_is_there_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["serve", "s3", "--auth-key", "key,secret", "--addr", "127.0.0.1:PORT"];
    let Some((_server, endpoint)) = server(folder.path(), "rclone", &args) else { return };
    on_the_network(async {
        let refused = open(bucket(&endpoint)).await.append(&records(1, 4), &[taken(1, 4)], T0).await;
        assert!(matches!(refused, Err(crate::LakeError::Overwrites)), "{refused:?}");
    });
}
