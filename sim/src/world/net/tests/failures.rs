use std::io::{self, ErrorKind};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// `a` connects to `host`; returns how that ended and how long it took.
fn connecting(pair: &mut Pair, host: &'static str) -> (Result<(), ErrorKind>, u64) {
    let seen = Slot::new();
    let (tell, env) = (seen.clone(), pair.a.clone());
    pair.on(A, async move {
        let before = env.now().0;
        let result = env.net.connect(host, 7).await.map(|_| ()).map_err(|error| error.kind());
        tell.set((result, env.now().0 - before));
    });
    pair.run(60 * SECOND);
    seen.take().expect("connecting ends")
}

#[test]
fn a_port_that_nobody_listens_on_refuses_after_a_round_trip() {
    let mut pair = pair(1, quick(5));
    assert_eq!(connecting(&mut pair, "b"), (Err(ErrorKind::ConnectionRefused), 10 * MS));
    assert_eq!(pair.world.network().stats().refused, 1);
}

#[test]
fn who_has_no_name_is_not_found_and_who_is_off_or_cut_off_times_out() {
    let mut pair = pair(2, quick(5));
    assert_eq!(connecting(&mut pair, "c").0, Err(ErrorKind::NotFound));
    let about_20_s = |(result, after): (Result<(), ErrorKind>, u64)| {
        assert_eq!(result, Err(ErrorKind::TimedOut));
        assert!((19 * SECOND..=21 * SECOND).contains(&after), "{after}");
    };
    about_20_s(connecting(&mut pair, "10.9.9.9"));
    pair.world.network().cut(B, A);
    about_20_s(connecting(&mut pair, "b"));
    pair.world.network().heal_all();
    pair.world.power_off(B);
    about_20_s(connecting(&mut pair, "b"));
    assert_eq!(pair.world.network().stats().timed_out, 2);
}

/// `a` writes a byte each 100 ms, `b` reads them.
struct Ticking {
    written: Slot<io::Result<()>>,
    read: Slot<io::Result<()>>,
    count: Arc<Mutex<usize>>,
}

fn ticking(pair: &Pair, ticks: usize) -> Ticking {
    let ticking = Ticking { written: Slot::new(), read: Slot::new(), count: Arc::default() };
    let (written, read, count) = (ticking.written.clone(), ticking.read.clone(), ticking.count.clone());
    stream(
        pair,
        move |env, mut stream| async move {
            for n in 0..ticks {
                if let Err(error) = stream.write_all(&[n as u8]).await {
                    return written.set(Err(error));
                }
                env.sleep(Span::from_millis(100)).await;
            }
            written.set(Ok(()));
        },
        move |_, mut stream| async move {
            let mut byte = [0];
            loop {
                match stream.read(&mut byte).await {
                    Ok(0) => return read.set(Ok(())),
                    Ok(_) => {
                        let mut count = count.lock().unwrap();
                        assert_eq!(byte[0], *count as u8);
                        *count += 1;
                    }
                    Err(error) => return read.set(Err(error)),
                }
            }
        },
    );
    ticking
}

#[test]
fn a_partition_delays_and_loses_nothing() {
    for one_way in [false, true] {
        let mut pair = pair(3, quick(5));
        let ticks = ticking(&pair, 1000);
        pair.run(10 * SECOND);
        let before = *ticks.count.lock().unwrap();
        assert!((95..=101).contains(&before), "{before}");
        if one_way {
            pair.world.network().cut(A, B);
        } else {
            pair.world.network().cut_all_but_self(A);
        }
        pair.run(30 * SECOND);
        assert_eq!(*ticks.count.lock().unwrap(), before);
        pair.world.network().heal_all();
        pair.run(600 * SECOND);
        assert_eq!(*ticks.count.lock().unwrap(), 1000);
        assert!(matches!((ticks.written.take(), ticks.read.take()), (Some(Ok(())), Some(Ok(())))));
    }
}

#[test]
fn a_writer_gives_up_after_a_minute_without_an_answer() {
    // With the way back cut, the first bytes arrive, but the writer does not learn that.
    for cut_back in [false, true] {
        let mut pair = pair(4, quick(5));
        let ticks = ticking(&pair, 2000);
        pair.run(10 * SECOND);
        let before = *ticks.count.lock().unwrap();
        let (from, to) = if cut_back { (B, A) } else { (A, B) };
        pair.world.network().cut(from, to);
        pair.run(59 * SECOND);
        assert!(ticks.written.take().is_none());
        assert_eq!(*ticks.count.lock().unwrap() > before, cut_back);
        pair.run(3 * SECOND);
        assert_eq!(ticks.written.take().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
        // The reader has nothing to send and thus never learns, as with TCP.
        pair.run(600 * SECOND);
        assert!(ticks.read.take().is_none());
    }
}

#[test]
fn both_ends_of_a_broken_path_time_out_when_both_send() {
    let mut pair = pair(5, quick(5));
    let ends = [Slot::new(), Slot::new()];
    let task = |slot: Slot<(ErrorKind, u64)>| {
        move |env: Env, mut stream: Box<dyn Stream>| async move {
            let error = loop {
                if let Err(error) = stream.write(b"here").await {
                    break error;
                }
                env.sleep(Span::from_secs(1)).await;
            };
            slot.set((error.kind(), env.now().0));
        }
    };
    stream(&pair, task(ends[0].clone()), task(ends[1].clone()));
    pair.run(5 * SECOND);
    pair.world.network().cut_both(A, B);
    pair.run(100 * SECOND);
    for end in ends {
        let (error, at) = end.take().unwrap();
        assert_eq!(error, ErrorKind::TimedOut);
        assert!((64 * SECOND..68 * SECOND).contains(&at), "{at}");
    }
    assert_eq!(pair.world.network().stats().timed_out, 2);
    assert_eq!(pair.world.network().open_streams(), 0);
}

#[test]
fn an_idle_stream_sleeps_through_a_partition() {
    let mut pair = pair(6, quick(5));
    let seen = Slot::new();
    let tell = seen.clone();
    stream(
        &pair,
        |env, mut stream| async move {
            env.sleep(Span::from_secs(200)).await;
            stream.write_all(b"good morning").await.unwrap();
        },
        move |_, mut stream| async move {
            let mut all = String::new();
            stream.read_to_string(&mut all).await.unwrap();
            tell.set(all);
        },
    );
    pair.run(5 * SECOND);
    pair.world.network().cut_both(A, B);
    pair.run(180 * SECOND);
    pair.world.network().heal_both(A, B);
    pair.run(60 * SECOND);
    assert_eq!(seen.take().as_deref(), Some("good morning"));
}

#[test]
fn who_loses_power_is_missed_only_by_those_who_send() {
    for back_after in [None, Some(5 * SECOND)] {
        let mut pair = pair(7, quick(5));
        let ticks = ticking(&pair, 2000);
        pair.run(10 * SECOND);
        pair.world.power_off(B);
        if let Some(after) = back_after {
            pair.run(after);
            pair.b = pair.world.boot(B);
            pair.run(3 * SECOND);
            assert_eq!(ticks.written.take().unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
        } else {
            pair.run(19 * SECOND);
            assert!(ticks.written.take().is_none());
            pair.run(2 * SECOND);
            assert_eq!(ticks.written.take().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
        }
        assert_eq!(pair.world.network().open_streams(), 0);
        assert_eq!(pair.world.network().buffered(B), 0);
    }
    // The reader of a host that has lost its power waits.
    let mut pair = pair(8, quick(5));
    let ticks = ticking(&pair, 2000);
    pair.run(10 * SECOND);
    pair.world.power_off(A);
    pair.run(600 * SECOND);
    assert!(ticks.read.take().is_none());
}

#[test]
fn a_program_that_is_killed_leaves_what_it_wrote_and_an_end() {
    let mut pair = pair(9, quick(5));
    let ticks = ticking(&pair, 2000);
    // The last byte is on its way when the program ends.
    pair.run(10 * SECOND + 11 * MS);
    pair.world.kill(A);
    pair.run(20 * MS);
    assert!(matches!(ticks.read.take(), Some(Ok(()))));
    assert_eq!(*ticks.count.lock().unwrap(), 101);
    assert_eq!(pair.world.network().open_streams(), 0);
}

#[test]
fn a_killed_program_is_answered_for_by_its_machine() {
    let mut pair = pair(10, quick(5));
    let ticks = ticking(&pair, 2000);
    pair.run(10 * SECOND);
    pair.world.kill(B);
    pair.run(200 * MS);
    // The machine is not there as long as its program is not: that is what being down means here.
    pair.b = pair.world.boot(B);
    pair.run(SECOND);
    assert_eq!(ticks.written.take().unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn nothing_of_one_boot_reaches_the_next() {
    let mut pair = pair(11, quick(50));
    let env = pair.a.clone();
    let listening = |env: Env, heard: Slot<Vec<u8>>| async move {
        let mut listener = env.net.listen(port(7)).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        heard.set(all);
    };
    let (first, second) = (Slot::new(), Slot::new());
    pair.on(B, listening(pair.b.clone(), first.clone()));
    pair.on(A, async move {
        let mut stream = env.net.connect("b", 7).await.unwrap();
        let _ = stream.write_all(b"for the first boot").await;
        env.sleep(Span::from_secs(60)).await;
    });
    // The bytes are on their way.
    pair.run(120 * MS);
    pair.world.power_off(B);
    pair.b = pair.world.boot(B);
    pair.on(B, listening(pair.b.clone(), second.clone()));
    pair.run(120 * SECOND);
    assert_eq!((first.take(), second.take()), (None, None));
}

#[test]
fn a_world_that_ends_leaves_nothing_behind() {
    let mut pair = pair(12, quick(50));
    let _ticks = ticking(&pair, 2000);
    let net = pair.a.net.clone();
    pair.on(A, async move {
        // The world ends before this does.
        let _ = net.connect("10.9.9.9", 7).await;
    });
    pair.run(10 * SECOND);
    let core = Arc::downgrade(pair.world.core());
    drop(pair);
    assert_eq!(core.strong_count(), 0);
}
