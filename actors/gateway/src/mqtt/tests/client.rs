//! A client of tests: packets in and out, over a pipe in memory.

use std::{io, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use millpond_env::{Listener, Stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{MqttMetrics, MqttSettings, codec::*, serve},
    node::FakeNode,
};
use crate::{
    auth::{Auth, AuthSettings, UserSettings},
    broker::Broker,
    testing,
};

/// Pipes instead of sockets: the other ends are the clients.
#[derive(Debug)]
struct Pipes(mpsc::UnboundedReceiver<DuplexStream>);

#[async_trait]
impl Listener for Pipes {
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        match self.0.recv().await {
            Some(stream) => Ok((Box::new(stream), self.local_addr())),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1883))
    }
}

pub(super) struct Served {
    pub node: Arc<FakeNode>,
    pub broker: Arc<Broker>,
    door: mpsc::UnboundedSender<DuplexStream>,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Served {
    pub(super) fn start(settings: MqttSettings, users: Vec<UserSettings>) -> Served {
        let env = testing::env();
        let (node, broker) = (FakeNode::new(), Arc::new(Broker::new()));
        let auth = Arc::new(Auth::new(&env, &AuthSettings { users }, Vec::new()).expect("users are fine"));
        let registry = prometheus::Registry::new();
        let metrics = MqttMetrics::new(&registry).expect("names are free");
        broker.register(&registry).expect("names are free");
        let (door, streams) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let serving =
            serve(env, Box::new(Pipes(streams)), node.clone(), broker.clone(), auth, settings, metrics, stop.clone());
        Served { node, broker, door, stop, served: tokio::spawn(serving) }
    }

    /// A door that lets everybody in.
    pub(super) fn open() -> Served {
        Served::start(MqttSettings { anonymous: true, ..MqttSettings::default() }, Vec::new())
    }

    /// A connection on which nothing was said yet.
    pub(super) fn dial(&self, version: Version) -> Client {
        let (ours, theirs) = duplex(1 << 20);
        self.door.send(theirs).expect("the door is open");
        Client { version, stream: ours, buffer: BytesMut::new() }
    }

    pub(super) async fn connect(&self, version: Version, name: &str) -> Client {
        let mut client = self.dial(version);
        client.send(&Packet::Connect(Box::new(hello(version, name)))).await;
        let Packet::ConnAck(answer) = client.next().await else { panic!("no CONNACK") };
        assert_eq!(answer.code, 0);
        client
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.served.await.expect("it ends");
    }
}

pub(super) fn hello(version: Version, name: &str) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive: 0,
        client_id: Text::from(name),
        will: None,
        username: None,
        password: None,
        properties: Properties::default(),
    }
}

pub(super) struct Client {
    version: Version,
    pub stream: DuplexStream,
    buffer: BytesMut,
}

impl Client {
    pub(super) async fn send(&mut self, packet: &Packet) {
        let mut out = BytesMut::new();
        encode(self.version, packet, &mut out);
        self.stream.write_all(&out).await.expect("the door reads");
    }

    pub(super) async fn publish(&mut self, topic: &str, id: u16, retain: bool, payload: &str) {
        self.send(&message(topic, id, retain, payload)).await;
    }

    pub(super) async fn subscribe(&mut self, filter: &str, qos: u8) -> Vec<u8> {
        let options = SubscribeOptions { qos, ..SubscribeOptions::default() };
        let filters = vec![(Text::from(filter), options)];
        self.send(&Packet::Subscribe(Subscribe { id: 1, properties: Properties::default(), filters })).await;
        let Packet::SubAck(answer) = self.next().await else { panic!("no SUBACK") };
        answer.codes
    }

    pub(super) async fn next(&mut self) -> Packet {
        self.try_next().await.expect("the connection was closed")
    }

    /// `None` when the door closed the connection.
    pub(super) async fn try_next(&mut self) -> Option<Packet> {
        loop {
            if let Split::Packet { first, body, len } = split(&self.buffer, usize::MAX).expect("a packet") {
                let packet: Bytes = self.buffer.split_to(len).freeze();
                return Some(decode(self.version, first, packet.slice(body..)).expect("a packet"));
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Waits for the next acknowledgement: (packet identifier, reason).
    pub(super) async fn acknowledged(&mut self) -> (u16, u8) {
        match self.next().await {
            Packet::PubAck(ack) => (ack.id, ack.reason),
            other => panic!("not a PUBACK: {other:?}"),
        }
    }

    /// Everything until now was handled: the door answers a ping only after what came before it.
    pub(super) async fn ping(&mut self) {
        self.send(&Packet::PingReq).await;
        assert_eq!(self.next().await, Packet::PingResp);
    }
}

/// QoS 0 with identifier 0, else QoS 1.
pub(super) fn message(topic: &str, id: u16, retain: bool, payload: &str) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: u8::from(id > 0),
        retain,
        topic: Text::from(topic),
        id: (id > 0).then_some(id),
        properties: Properties::default(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    })
}
