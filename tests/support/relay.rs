//! A line for UDP that can be cut.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Carries datagrams between whoever sends to `addr` and one address behind it, while it is not cut.
pub struct Relay {
    pub addr: SocketAddr,
    cut: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl Relay {
    pub fn to(behind: SocketAddr) -> Relay {
        let front = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let addr = front.local_addr().expect("an address");
        let (cut, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (is_cut, is_over) = (cut.clone(), ended.clone());
        thread::spawn(move || carry(&front, behind, &is_cut, &is_over));
        Relay { addr, cut, ended }
    }

    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn carry(front: &UdpSocket, behind: SocketAddr, cut: &Arc<AtomicBool>, ended: &Arc<AtomicBool>) {
    front.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit");
    let mut clients: BTreeMap<SocketAddr, UdpSocket> = BTreeMap::new();
    let mut bytes = [0; 2048];
    while !ended.load(Ordering::Relaxed) {
        let Ok((length, from)) = front.recv_from(&mut bytes) else { continue };
        let back = clients.entry(from).or_insert_with(|| {
            let back = UdpSocket::bind("127.0.0.1:0").expect("a port");
            back.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit");
            let (listens, answers) = (back.try_clone().expect("a copy"), front.try_clone().expect("a copy"));
            let (cut, ended) = (cut.clone(), ended.clone());
            thread::spawn(move || {
                let mut bytes = [0; 2048];
                while !ended.load(Ordering::Relaxed) {
                    let Ok((length, _)) = listens.recv_from(&mut bytes) else { continue };
                    if !cut.load(Ordering::Relaxed) {
                        let _ = answers.send_to(&bytes[..length], from);
                    }
                }
            });
            back
        });
        if !cut.load(Ordering::Relaxed) {
            let _ = back.send_to(&bytes[..length], behind);
        }
    }
}
