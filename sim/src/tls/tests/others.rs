//! Nodes of two sites: who is answered, and that a connection between sites is good for nothing else.

use std::{collections::BTreeSet, sync::MutexGuard};

use bytes::Bytes;
use millpond_cluster::{
    identity::NodeIdentity,
    transport::{Event, Options, OtherSite, SiteLink, Transport},
};
use millpond_core::ids::Origin;

use super::*;

const PORT: u16 = 7400;

/// What a node has seen.
#[derive(Default)]
struct Node {
    transport: Option<Transport>,
    /// In words, in their order.
    seen: Vec<String>,
    link: Option<SiteLink>,
}

#[derive(Clone)]
struct Handle {
    host: HostId,
    env: Env,
    node: Arc<Mutex<Node>>,
}

impl Handle {
    fn node(&self) -> MutexGuard<'_, Node> {
        self.node.lock().unwrap()
    }

    fn transport(&self) -> Transport {
        self.node().transport.clone().expect("it is open")
    }

    fn saw(&self, words: &str) -> bool {
        self.node().seen.iter().any(|seen| seen.contains(words))
    }
}

/// A mill and a bakery with a node each: the bakery's is the client.
struct Stage {
    world: World,
    mill: Authority,
    bakery: Authority,
}

fn address(host: HostId) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 0, 0, host.0 as u8 + 1).into(), PORT)
}

fn other(site: &str, authority: &Authority) -> OtherSite {
    let authority = authority.node("anybody").authority_certificate().expect("it has one").clone();
    OtherSite { site: site.to_owned(), authority, revoked: BTreeSet::new() }
}

impl Stage {
    fn new(seed: u64) -> Stage {
        let world = world(seed);
        world.network().set_default(LinkSpec::LOCAL);
        Stage { world, mill: Authority::named(seed, "mill"), bakery: Authority::named(seed + 1000, "bakery") }
    }

    fn run(&mut self, ns: u64) {
        run(&mut self.world, ns);
    }

    fn open(&mut self, host: HostId, identity: Arc<NodeIdentity>) -> Handle {
        let env = self.world.boot(host);
        let handle = Handle { host, env: env.clone(), node: Arc::default() };
        let opened = handle.clone();
        self.world.enter(host, || {
            env.clone().spawn(async move {
                let provider = provider(&env, "link");
                let options = Options { listen: address(host), identity, provider };
                let (transport, mut events) = Transport::open(&env, options).await.unwrap();
                opened.node().transport = Some(transport);
                while let Some(event) = events.recv().await {
                    let words = match event {
                        Event::OtherSite { site, from, frame, mut replies, .. } => {
                            opened.env.spawn(async move {
                                let _ = replies.send(Bytes::from_static(b"bread")).await;
                                replies.finish();
                            });
                            format!("{site} {from} asks {}", String::from_utf8_lossy(&frame))
                        }
                        Event::Connected(link) => format!("connected {}", link.peer()),
                        Event::DialFailed { why, .. } => format!("failed {why}"),
                        other => format!("{other:?}"),
                    };
                    opened.node().seen.push(words);
                }
            });
        });
        self.run(SECOND);
        handle
    }

    fn trust(&self, who: &Handle, others: Vec<OtherSite>) {
        self.world.enter(who.host, || who.transport().set_others(others).expect("they can be used"));
    }

    /// Calls the server and asks it something; the answer or the reason for none is in what it saw.
    fn ask(&mut self, from: &Handle, site: &'static str) {
        let asking = from.clone();
        self.world.enter(from.host, || {
            let transport = asking.transport();
            asking.env.clone().spawn(async move {
                let said = match transport.call(site, &[address(SERVER)]).await {
                    Ok(link) => {
                        let said = answer(&link).await;
                        asking.node().link = Some(link);
                        said
                    }
                    Err(why) => format!("no call: {why}"),
                };
                asking.node().seen.push(said);
            });
        });
        self.run(20 * SECOND);
    }

    /// The mill's node, which trusts these, and one that trusts the mill.
    fn pair(&mut self, trusted: Vec<OtherSite>, caller: Arc<NodeIdentity>) -> (Handle, Handle) {
        let identity = self.mill.node("server");
        let (server, client) = (self.open(SERVER, identity), self.open(CLIENT, caller));
        self.trust(&server, trusted);
        self.trust(&client, vec![other("mill", &self.mill)]);
        (server, client)
    }
}

async fn answer(link: &SiteLink) -> String {
    let answer = async {
        let mut replies = link.ask(Bytes::from_static(b"for flour")).await?;
        replies.next().await
    };
    match answer.await {
        Ok(Some(bytes)) => format!("answer {}", String::from_utf8_lossy(&bytes)),
        Ok(None) => "no answer".to_owned(),
        Err(error) => format!("no answer: {error}"),
    }
}

#[test]
fn a_node_of_a_trusted_site_is_answered_and_is_who_its_authority_says() {
    let mut stage = Stage::new(1);
    let caller = stage.bakery.node("client");
    let origin: Origin = caller.origin;
    let (server, client) = stage.pair(vec![other("bakery", &Stage::new(1).bakery)], caller);
    stage.ask(&client, "mill");
    assert!(client.saw("answer bread"), "{:?}", client.node().seen);
    assert_eq!(server.node().seen, [format!("bakery {origin} asks for flour")]);
    // Not trusted any more, the connection ends, and there is no other.
    stage.trust(&server, Vec::new());
    stage.run(SECOND);
    assert!(client.node().link.as_ref().is_some_and(SiteLink::is_over));
    stage.ask(&client, "mill");
    assert_eq!(server.node().seen.len(), 1, "{:?}", server.node().seen);
}

#[test]
fn a_node_of_a_site_that_is_not_trusted_is_not_heard() {
    // There is nobody to trust, or it is somebody else.
    for trusted in [Vec::new(), vec![other("bakery", &Authority::named(7, "bakery"))]] {
        let mut stage = Stage::new(2);
        let caller = stage.bakery.node("client");
        let (server, client) = stage.pair(trusted, caller);
        stage.ask(&client, "mill");
        assert!(client.saw("no "), "{:?}", client.node().seen);
        assert_eq!(server.node().seen, Vec::<String>::new());
    }
}

#[test]
fn a_node_of_a_trusted_site_that_was_revoked_is_not_heard() {
    let mut stage = Stage::new(3);
    let caller = stage.bakery.node("client");
    let trusted = OtherSite { revoked: BTreeSet::from([caller.origin]), ..other("bakery", &stage.bakery) };
    let (server, client) = stage.pair(vec![trusted], caller);
    stage.ask(&client, "mill");
    assert!(client.saw("revoked"), "{:?}", client.node().seen);
    assert_eq!(server.node().seen, Vec::<String>::new());
}

#[test]
fn a_node_of_a_trusted_site_does_not_become_a_member() {
    let mut stage = Stage::new(4);
    let theirs = stage.bakery.node("client");
    // It believes the mill's nodes, and speaks as one of them.
    let caller = NodeIdentity {
        origin: theirs.origin,
        incarnation: theirs.incarnation,
        node: theirs.node.clone(),
        site: theirs.site.clone(),
        chain: theirs.chain.clone(),
        key: theirs.key.clone_key(),
        roots: stage.mill.node("x").roots.clone(),
        revoked: BTreeSet::new(),
        first_seeds: Vec::new(),
        expires: theirs.expires,
        valid: theirs.valid,
        founder: false,
    };
    let trusted = vec![other("bakery", &stage.bakery)];
    let (server, client) = stage.pair(trusted, Arc::new(caller));
    stage.world.enter(client.host, || client.transport().dial(vec![address(SERVER)]));
    stage.run(20 * SECOND);
    assert!(client.saw("failed") && client.saw("the certificate is not valid here"), "{:?}", client.node().seen);
    assert_eq!(server.node().seen, Vec::<String>::new());
}

#[test]
fn a_member_is_not_another_site() {
    let mut stage = Stage::new(5);
    let caller = stage.mill.node("client");
    let (server, client) = stage.pair(vec![other("bakery", &Stage::new(5).bakery)], caller);
    stage.ask(&client, "mill");
    assert!(client.saw("no answer") && client.saw("not one of a site that is trusted"), "{:?}", client.node().seen);
    assert_eq!(server.node().seen, Vec::<String>::new());
}

#[test]
fn who_answers_must_be_of_the_site_that_is_called() {
    let mut stage = Stage::new(6);
    let (caller, bakery) = (stage.bakery.node("client"), other("bakery", &stage.bakery));
    let (server, client) = stage.pair(vec![bakery], caller);
    // The address leads to the mill, but a smithy is called.
    let smithy = other("smithy", &Authority::named(8, "smithy"));
    stage.trust(&client, vec![other("mill", &Stage::new(6).mill), smithy]);
    stage.ask(&client, "smithy");
    assert!(client.saw("no call"), "{:?}", client.node().seen);
    assert_eq!(server.node().seen, Vec::<String>::new());
}
