use std::{future::poll_fn, io::ErrorKind};

use millpond_env::Datagrams;

use super::*;
use crate::world::net::{DATAGRAM_BYTES_MAX, INBOX_BYTES_MAX};

/// `b` hears on port 5 what `a` sends; each datagram is its number, padded to `bytes`.
fn sending(pair: &mut Pair, count: u32, bytes: usize, every: Span) -> Vec<u32> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (env, list) = (pair.b.clone(), heard.clone());
    pair.on(B, async move {
        let socket = env.net.bind(port(5)).await.unwrap();
        let mut into = vec![0; 65_536];
        loop {
            let (n, from) = poll_fn(|cx| socket.poll_receive(cx, &mut into)).await.unwrap();
            assert_eq!((n, from), (bytes, "10.0.0.1:6".parse().unwrap()));
            list.lock().unwrap().push(u32::from_le_bytes(into[..4].try_into().unwrap()));
        }
    });
    let env = pair.a.clone();
    pair.on(A, async move {
        let socket = env.net.bind(port(6)).await.unwrap();
        for n in 0..count {
            send(&*socket, n, bytes).await;
            if every > Span::ZERO {
                env.sleep(every).await;
            }
        }
    });
    pair.run(3600 * SECOND);
    let heard = heard.lock().unwrap();
    heard.clone()
}

async fn send(socket: &dyn Datagrams, n: u32, bytes: usize) {
    let mut datagram = vec![0; bytes];
    datagram[..4].copy_from_slice(&n.to_le_bytes());
    poll_fn(|cx| socket.poll_send(cx, "10.0.0.2:5".parse().unwrap(), &datagram)).await.unwrap();
}

#[test]
fn datagrams_arrive_in_order_where_nothing_disturbs_them() {
    let mut pair = pair(1, quick(5));
    let heard = sending(&mut pair, 20_000, 100, Span(1000));
    assert_eq!(heard, (0..20_000).collect::<Vec<_>>());
}

#[test]
fn loss_duplication_and_reordering_are_as_asked_for() {
    let spec = LinkSpec { loss: 0.1, duplicate: 0.05, reorder: 0.02, ..quick(5) };
    let mut pair = pair(2, spec);
    let mut heard = sending(&mut pair, 20_000, 100, Span(1_000_000));
    let stats = pair.world.network().stats();
    assert!((1800..2200).contains(&stats.lost), "{stats:?}");
    assert!((800..1000).contains(&stats.duplicated), "{stats:?}");
    assert_eq!(heard.len() as u64, 20_000 - stats.lost + stats.duplicated);
    let overtaken = heard.windows(2).filter(|two| two[0] > two[1]).count();
    assert!((200..600).contains(&overtaken), "{overtaken}");
    heard.sort_unstable();
    heard.dedup();
    assert_eq!(heard.len() as u64, 20_000 - stats.lost);
}

#[test]
fn datagrams_that_are_too_long_are_lost() {
    let mut exact = pair(3, quick(5));
    assert_eq!(sending(&mut exact, 10, DATAGRAM_BYTES_MAX, Span(1)).len(), 10);
    let mut longer = pair(3, quick(5));
    assert_eq!(sending(&mut longer, 10, DATAGRAM_BYTES_MAX + 1, Span(1)).len(), 0);
    let mut wider = pair(3, quick(5));
    wider.world.network().set_datagram_bytes_max(9000);
    assert_eq!(sending(&mut wider, 10, 9000, Span(1)).len(), 10);
}

#[test]
fn nothing_passes_a_cut_not_even_what_was_on_its_way() {
    let mut pair = pair(4, quick(500));
    pair.world.network().cut(B, A);
    let cutter = pair.world.network().clone();
    let env = pair.a.clone();
    pair.on(A, async move {
        // Never at the nanosecond at which something arrives.
        env.sleep(Span(SECOND as i64 + 500_000)).await;
        cutter.cut(A, B);
        env.sleep(Span::from_secs(1)).await;
        cutter.heal(A, B);
    });
    let heard = sending(&mut pair, 3000, 100, Span(1_000_000));
    let expected: Vec<u32> = (0..=500).chain(2001..3000).collect();
    assert_eq!(heard, expected);
}

#[test]
fn a_full_inbox_and_a_full_link_drop_what_comes_later() {
    // Nobody receives.
    let mut deaf = pair(5, quick(5));
    let (listening, sending_env) = (deaf.b.clone(), deaf.a.clone());
    deaf.on(B, async move {
        let _socket = listening.net.bind(port(5)).await.unwrap();
        std::future::pending::<()>().await;
    });
    deaf.on(A, async move {
        let socket = sending_env.net.bind(port(6)).await.unwrap();
        for n in 0..2000 {
            send(&*socket, n, 1024).await;
        }
    });
    deaf.run(SECOND);
    assert_eq!(deaf.world.network().buffered(B), INBOX_BYTES_MAX as u64);
    // A quarter of a second of a narrow link is all that waits.
    let narrow = LinkSpec { bytes_per_second: Some(100_000), ..quick(5) };
    let mut full = pair(6, narrow);
    let heard = sending(&mut full, 1000, 1000, Span::ZERO);
    assert!((20..30).contains(&heard.len()), "{}", heard.len());
}

#[test]
fn a_socket_ends_with_its_boot_and_frees_its_port() {
    let mut pair = pair(7, quick(5));
    let env = pair.b.clone();
    pair.on(B, async move {
        let socket = env.net.bind(port(5)).await.unwrap();
        assert_eq!(env.net.bind(port(5)).await.unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(socket);
        let _socket = env.net.bind(port(5)).await.unwrap();
        std::future::pending::<()>().await;
    });
    pair.run(SECOND);
    let old = pair.b.clone();
    pair.world.power_off(B);
    pair.b = pair.world.boot(B);
    assert_eq!(sending(&mut pair, 10, 100, Span(1)).len(), 10);
    let gone = Slot::new();
    let tell = gone.clone();
    pair.on(B, async move { tell.set(old.net.bind(port(9)).await.unwrap_err().kind()) });
    assert_eq!(gone.take(), Some(ErrorKind::NetworkDown));
}
