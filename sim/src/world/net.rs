//! The network between hosts (skeleton).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use millpond_env::{Datagrams, Listener, Net, Stream};

use super::core::{Core, HostId, Place};

#[derive(Debug)]
pub struct Network {
    _core: Arc<Core>,
}

impl Network {
    pub(crate) fn new(core: Arc<Core>) -> Network {
        Network { _core: core }
    }
    pub(crate) fn add_host(&self, _id: HostId, _name: &str, _address: IpAddr) {}
    pub(crate) fn attach(&self, _place: Place) {}
    pub(crate) fn detach(&self, _host: HostId, _says_goodbye: bool) {}
    pub(crate) fn net(&self, _place: Place) -> Arc<dyn Net> {
        Arc::new(NoNet)
    }
}

#[derive(Debug)]
struct NoNet;

#[async_trait]
impl Net for NoNet {
    async fn listen(&self, _: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    async fn bind(&self, _: SocketAddr) -> io::Result<Arc<dyn Datagrams>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    async fn connect(&self, _: &str, _: u16) -> io::Result<Box<dyn Stream>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
