use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::world::net::{BACKLOG_MAX, WINDOW};

/// `a` sends `bytes` to `b`, which sends them back. Returns what came back and the run's hash.
fn echo(seed: u64, spec: LinkSpec, bytes: usize, write: usize) -> (Vec<u8>, u64, u64) {
    let mut pair = pair(seed, spec);
    let back = Slot::new();
    let tell = back.clone();
    stream(
        &pair,
        move |env, stream| async move {
            let (mut read, mut half) = tokio::io::split(stream);
            env.spawn(async move {
                for part in pattern(bytes).chunks(write) {
                    half.write_all(part).await.unwrap();
                }
                half.shutdown().await.unwrap();
            });
            let mut all = Vec::new();
            read.read_to_end(&mut all).await.unwrap();
            tell.set((all, env.now().0));
        },
        |_, stream| async move {
            let (mut read, mut write) = tokio::io::split(stream);
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        },
    );
    pair.run(3600 * SECOND);
    assert_eq!(pair.world.network().open_streams(), 0);
    let (all, at) = back.take().expect("everything came back");
    (all, at, pair.world.core().tracer().hash())
}

#[test]
fn what_is_sent_comes_back() {
    let (back, at, _) = echo(1, quick(5), 1_000_000, 100_000);
    assert!(back == pattern(1_000_000));
    // A round trip to connect, and for each window one more; none of it is slower than that.
    assert!((20 * MS..100 * MS).contains(&at), "{at}");
}

#[test]
fn order_survives_loss_jitter_and_ties() {
    let jitter = LinkSpec { latency: (Span(0), Span::from_millis(50)), loss: 0.2, ..LinkSpec::LOCAL };
    assert!(echo(2, jitter, 300_000, 777).0 == pattern(300_000));
    // All segments at the same nanosecond.
    assert!(echo(3, quick(0), 300_000, 777).0 == pattern(300_000));
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    let spec = LinkSpec { latency: (Span(0), Span::from_millis(50)), loss: 0.05, ..LinkSpec::LOCAL };
    let hash = |seed| echo(seed, spec, 200_000, 3000).2;
    assert_eq!(hash(7), hash(7));
    assert_ne!(hash(7), hash(8));
}

#[test]
fn a_writer_waits_for_its_reader_at_the_window() {
    let mut pair = pair(4, quick(5));
    let (written, read) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let (writes, reads) = (written.clone(), read.clone());
    stream(
        &pair,
        move |_, mut stream| async move {
            loop {
                *writes.lock().unwrap() += stream.write(&[7; 10_000]).await.unwrap();
            }
        },
        move |env, mut stream| async move {
            env.sleep(Span::from_secs(10)).await;
            let mut into = vec![0; 100_000];
            stream.read_exact(&mut into).await.unwrap();
            *reads.lock().unwrap() += into.len();
            std::future::pending::<()>().await;
        },
    );
    pair.run(9 * SECOND);
    assert_eq!((*written.lock().unwrap(), *read.lock().unwrap()), (WINDOW, 0));
    assert_eq!(pair.world.network().buffered(B), WINDOW as u64);
    assert_eq!(pair.world.network().buffered(A), 0);
    pair.run(9 * SECOND);
    assert_eq!((*written.lock().unwrap(), *read.lock().unwrap()), (WINDOW + 100_000, 100_000));
}

#[test]
fn bandwidth_is_time_and_small_writes_that_wait_travel_together() {
    let narrow = LinkSpec { bytes_per_second: Some(100_000), ..quick(5) };
    let mut pair = pair(5, narrow);
    let done = Slot::new();
    let tell = done.clone();
    stream(
        &pair,
        |_, mut stream| async move {
            for _ in 0..10_000 {
                stream.write_all(&[1; 100]).await.unwrap();
            }
        },
        move |env, mut stream| async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            tell.set((all.len(), env.now().0));
        },
    );
    pair.run(60 * SECOND);
    let (bytes, at) = done.take().unwrap();
    assert_eq!(bytes, 1_000_000);
    assert!((10 * SECOND..11 * SECOND).contains(&at), "{at}");
    assert!(pair.world.network().stats().segments < 50, "{:?}", pair.world.network().stats());
}

#[test]
fn a_half_closed_stream_still_answers() {
    let mut pair = pair(6, quick(5));
    let answer = Slot::new();
    let tell = answer.clone();
    stream(
        &pair,
        move |_, mut stream| async move {
            stream.write_all(b"question").await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(stream.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            let mut all = String::new();
            stream.read_to_string(&mut all).await.unwrap();
            tell.set(all);
        },
        |env, mut stream| async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"question");
            env.sleep(Span::from_secs(1)).await;
            stream.write_all(b"answer").await.unwrap();
        },
    );
    pair.run(10 * SECOND);
    assert_eq!(answer.take().as_deref(), Some("answer"));
    assert_eq!(pair.world.network().open_streams(), 0);
}

#[test]
fn a_dropped_stream_delivers_what_was_written_and_refuses_what_comes_later() {
    let mut pair = pair(7, quick(5));
    let seen = Slot::new();
    let tell = seen.clone();
    stream(
        &pair,
        |_, mut stream| async move {
            stream.write_all(&pattern(200_000)).await.unwrap();
        },
        move |env, mut stream| async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            // The other one cannot read any more, but nobody has told.
            stream.write_all(b"anyone?").await.unwrap();
            let before = env.now().0;
            while stream.write(b"?").await.is_ok() {
                env.sleep(Span::from_millis(1)).await;
            }
            tell.set((all, env.now().0 - before, stream.write(b"?").await.unwrap_err().kind()));
        },
    );
    pair.run(10 * SECOND);
    let (all, after, error) = seen.take().unwrap();
    assert!(all == pattern(200_000));
    // A round trip, as the next write notices it.
    assert_eq!((after, error), (11 * MS, ErrorKind::ConnectionReset));
    assert_eq!(pair.world.network().open_streams(), 0);
}

#[test]
fn a_writer_that_waits_is_freed_when_its_reader_goes() {
    let mut pair = pair(8, quick(5));
    let seen = Slot::new();
    let tell = seen.clone();
    stream(
        &pair,
        move |_, mut stream| async move {
            let error = loop {
                if let Err(error) = stream.write(&[0; 5000]).await {
                    break error;
                }
            };
            tell.set(error.kind());
        },
        |env, stream| async move {
            env.sleep(Span::from_secs(10)).await;
            drop(stream);
        },
    );
    pair.run(9 * SECOND);
    assert_eq!(seen.take(), None);
    pair.run(2 * SECOND);
    assert_eq!(seen.take(), Some(ErrorKind::ConnectionReset));
}

#[test]
fn a_host_reaches_itself_and_others_by_name_and_by_address() {
    let mut pair = pair(9, quick(50));
    let seen = Slot::new();
    let (tell, env) = (seen.clone(), pair.a.clone());
    pair.on(A, async move {
        let mut inside = env.net.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let mut outside = env.net.listen(port(0)).await.unwrap();
        let ports = (inside.local_addr().port(), outside.local_addr().port());
        assert_eq!(ports, (49_152, 49_153));
        let before = env.now().0;
        env.net.connect("localhost", ports.0).await.unwrap();
        let (_, peer) = inside.accept().await.unwrap();
        assert!(peer.ip().is_loopback() || peer.ip() == Ipv4Addr::new(10, 0, 0, 1), "{peer}");
        assert!(env.now().0 - before < MS);
        for name in ["a", "10.0.0.1"] {
            env.net.connect(name, ports.1).await.unwrap();
            let (_, peer) = outside.accept().await.unwrap();
            assert_eq!(peer.ip(), Ipv4Addr::new(10, 0, 0, 1));
        }
        let taken = env.net.listen(port(ports.0)).await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        let foreign = env.net.listen("10.0.0.2:0".parse().unwrap()).await.unwrap_err();
        assert_eq!(foreign.kind(), ErrorKind::AddrNotAvailable);
        tell.set(ports);
        std::future::pending::<()>().await;
    });
    let env = pair.b.clone();
    pair.run(SECOND);
    let ports = seen.take().expect("all of it worked");
    let tell = Slot::new();
    let told = tell.clone();
    pair.on(B, async move {
        let inside = env.net.connect("a", ports.0).await.map(|_| ()).map_err(|error| error.kind());
        let outside = env.net.connect("10.0.0.1", ports.1).await.is_ok();
        tell.set((inside, outside));
    });
    pair.run(SECOND);
    assert_eq!(told.take(), Some((Err(ErrorKind::ConnectionRefused), true)));
}

#[test]
fn a_full_backlog_makes_others_wait() {
    let mut pair = pair(10, quick(1));
    let connected = Arc::new(Mutex::new(0));
    let (count, listening) = (connected.clone(), pair.b.clone());
    pair.on(B, async move {
        let mut listener = listening.net.listen(port(7)).await.unwrap();
        listening.sleep(Span::from_millis(500)).await;
        loop {
            listener.accept().await.unwrap();
        }
    });
    for _ in 0..BACKLOG_MAX + 10 {
        let (env, count) = (pair.a.clone(), count.clone());
        pair.on(A, async move {
            let stream = env.net.connect("b", 7).await.unwrap();
            *count.lock().unwrap() += 1;
            env.sleep(Span::from_secs(60)).await;
            drop(stream);
        });
    }
    pair.run(400 * MS);
    assert_eq!(*connected.lock().unwrap(), BACKLOG_MAX);
    pair.run(2 * SECOND);
    assert_eq!(*connected.lock().unwrap(), BACKLOG_MAX + 10);
    pair.run(100 * SECOND);
    assert_eq!(pair.world.network().open_streams(), 0);
}
