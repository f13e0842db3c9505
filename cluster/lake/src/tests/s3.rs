//! The lake in a bucket: on a server that speaks S3, when there is one in the path.

#![allow(clippy::disallowed_methods, reason = "a server of another program needs a port and a folder")]

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use object_store::aws::AmazonS3Builder;

use super::*;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server with an empty bucket `lake`, and where it listens.
fn server(folder: &std::path::Path) -> Option<(Server, String)> {
    let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port().to_string();
    let bucket = folder.join("lake");
    std::fs::create_dir_all(&bucket).ok()?;
    let mut real = Command::new("s3s-fs");
    real.args(["--host", "127.0.0.1", "--port", &port, "--access-key", "key", "--secret-key", "secret"]).arg(folder);
    let mut mock = Command::new("moto_server");
    mock.args(["-H", "127.0.0.1", "-p", &port]);
    let start = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok();
    let child = start(&mut real).or_else(|| start(&mut mock))?;
    Some((Server(child), format!("http://127.0.0.1:{port}")))
}

#[test]
fn a_lake_in_a_bucket_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_server, endpoint)) = server(folder.path()) else {
        println!("not tested: S3, because neither s3s-fs nor moto_server is in the path (pip install 'moto[server]')");
        return;
    };
    let store = || {
        let bucket = AmazonS3Builder::new().with_endpoint(&endpoint).with_allow_http(true).with_region("us-east-1");
        let bucket = bucket.with_bucket_name("lake").with_access_key_id("key").with_secret_access_key("secret");
        Arc::new(bucket.build().unwrap()) as Arc<dyn ObjectStore>
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // A server of Python takes a second or two to come up, and makes a bucket when it is asked to; the other has one.
        let url = format!("{endpoint}/lake");
        let put = ["-s", "-X", "PUT", "--retry", "30", "--retry-delay", "1", "--retry-connrefused", &url];
        assert!(
            Command::new("curl").args(put).output().is_ok_and(|out| out.status.success()),
            "the server did not come up"
        );
        let (a, b) = (open(&store()).await, open(&store()).await);
        let pieces = records(1, 12);
        a.append(&pieces[..6], &[taken(1, 6)], T0).await.unwrap();
        // Knows nothing of the other, and loses cleanly.
        b.append(&pieces[3..], &[taken(4, 12)], T0).await.unwrap();
        b.compact(T0 + 10 * DAY_MS).await.unwrap();
        assert_rows(&b, &pieces).await;
        assert_rows(&open(&store()).await, &pieces).await;
        b.forget(TENANT, "press-1", T0 + 10 * DAY_MS).await.unwrap();
        for number in 0..crate::manifest::KEPT {
            b.append(&[], &[taken(1000 + number * 2, 1000 + number * 2)], T0 + 10 * DAY_MS).await.unwrap();
        }
        assert!(b.sweep(T0 + 20 * DAY_MS).await.unwrap().files > 0);
        assert_eq!(b.prove_forgotten("press-1").await.unwrap(), []);
    });
}
