//! Finding others on the local network by multicast DNS (RFC 6762) and DNS-SD (RFC 6763).

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
};

use async_trait::async_trait;
use mdns_sd::{IfKind, Receiver, ServiceDaemon, ServiceEvent, ServiceInfo};
use millpond_env::Neighbours;

const SERVICE: &str = "_millpond._udp.local.";

/// What one program says and hears. It says goodbye when it is dropped.
pub struct Mdns {
    daemon: ServiceDaemon,
    found: Receiver<ServiceEvent>,
    own: String,
}

impl Mdns {
    pub fn begin(name: &str, at: SocketAddr) -> io::Result<Mdns> {
        let daemon = ServiceDaemon::new().map_err(io::Error::other)?;
        // From here on dropping it ends the thread.
        let (own, found) = (format!("{name}.{SERVICE}"), daemon.browse(SERVICE));
        let mdns = Mdns { found: found.map_err(io::Error::other)?, daemon, own };
        let addr = if at.ip().is_unspecified() { String::new() } else { at.ip().to_string() };
        if at.ip().is_loopback() {
            let loopback = if at.is_ipv4() { IfKind::LoopbackV4 } else { IfKind::LoopbackV6 };
            mdns.daemon.enable_interface(loopback).map_err(io::Error::other)?;
        }
        let (host, text) = (format!("{name}.local."), [("program", "millpond")]);
        let info = ServiceInfo::new(SERVICE, name, &host, addr.as_str(), at.port(), &text[..]);
        let info = info.map_err(io::Error::other)?;
        let info = if addr.is_empty() { info.enable_addr_auto() } else { info };
        mdns.daemon.register(info).map_err(io::Error::other)?;
        Ok(mdns)
    }
}

#[async_trait]
impl Neighbours for Mdns {
    async fn next(&mut self) -> Option<Vec<SocketAddr>> {
        loop {
            let ServiceEvent::ServiceResolved(one) = self.found.recv_async().await.ok()? else { continue };
            if one.fullname.eq_ignore_ascii_case(&self.own) {
                continue;
            }
            // An address of a link means nothing without the interface.
            let is_enough = |ip: &IpAddr| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
            let found = one.addresses.iter().map(|addr| addr.to_ip_addr()).filter(is_enough);
            let mut found: Vec<SocketAddr> = found.map(|ip| SocketAddr::new(ip, one.port)).collect();
            found.sort_unstable();
            return Some(found);
        }
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        let _ = self.daemon.shutdown();
    }
}

impl fmt::Debug for Mdns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mdns").field(&self.own).finish()
    }
}
