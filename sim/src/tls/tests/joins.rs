//! Nodes that join a site, with their files and over the network.

use millpond_cluster::{
    identity::{self, Desk, EnrolError, Newcomer, NodeIdentity, Token, files},
    transport::{Event, Options, Transport},
};
use millpond_core::ids::{Incarnation, Origin};

use super::*;
use crate::world::disk::DiskSpec;

const FOUNDER: HostId = HostId(0);
const OTHERS: [HostId; 2] = [HostId(1), HostId(2)];
const DAY: i64 = 86_400;

struct Site {
    world: World,
    founder: Env,
    invitations: u32,
}

fn newcomer(node: &str, origin: u8) -> Newcomer {
    Newcomer { origin: Origin([origin; 16]), incarnation: Incarnation(0), node: node.to_owned() }
}

fn founder_addr() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), 7400)
}

impl Site {
    /// A site that was founded, and whose founder runs.
    fn new(seed: u64) -> Site {
        let mut world = World::new(seed, 0.0);
        for n in 0..3 {
            world.add(HostSpec {
                name: format!("node-{n}"),
                address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, n + 1)),
                clock_offset: Span::ZERO,
                clock_ppm: 20.0,
                disk: Some(DiskSpec::default()),
            });
        }
        let founder = world.boot(FOUNDER);
        let mut site = Site { world, founder: founder.clone(), invitations: 0 };
        let env = founder.clone();
        let founded = site.wait(FOUNDER, &founder, async move {
            let inside = env.clone();
            env.unblock(move || identity::found(&inside, "plant", &newcomer("founder", 1))).await.unwrap()
        });
        site.world.enter(FOUNDER, || founder.clone().spawn(serve_desk(founder, founded.unwrap())));
        run(&mut site.world, SECOND);
        site
    }

    /// Runs a task to its end.
    fn wait<T: Send + 'static>(
        &mut self,
        host: HostId,
        env: &Env,
        task: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let slot = Arc::new(Mutex::new(None));
        let tell = slot.clone();
        self.world.enter(host, || {
            env.spawn(async move {
                let done = task.await;
                *tell.lock().unwrap() = Some(done);
            });
        });
        run(&mut self.world, 60 * SECOND);
        slot.lock().unwrap().take().expect("it ends")
    }

    fn invite(&mut self, for_seconds: i64) -> Token {
        self.invitations += 1;
        let purpose = format!("invitation/{}", self.invitations);
        let env = self.founder.clone();
        let founder = self.founder.clone();
        let made = self.wait(FOUNDER, &founder, async move {
            let inside = env.clone();
            env.unblock(move || {
                let identity = NodeIdentity::load(inside.disk.as_ref())?.expect("it was founded");
                let expires = inside.wall().saturating_add(Span::from_secs(for_seconds));
                identity::invite(&inside, &mut inside.rng(&purpose), &identity, vec![founder_addr()], expires)
            })
            .await
            .unwrap()
        });
        made.unwrap()
    }

    fn join(&mut self, host: HostId, token: &Token, newcomer: Newcomer) -> Result<NodeIdentity, EnrolError> {
        let env = self.world.boot(host);
        let (inside, token) = (env.clone(), token.clone());
        let joined = self.wait(host, &env, async move {
            identity::accept(&inside, &provider(&inside, "join"), &token, &newcomer).await
        });
        self.world.kill(host);
        joined
    }
}

async fn serve_desk(env: Env, identity: NodeIdentity) {
    assert!(identity.founder);
    let options = Options { listen: founder_addr(), identity: Arc::new(identity), provider: provider(&env, "link") };
    let (_transport, mut events) = Transport::open(&env, options).await.unwrap();
    let desk = Desk::new(env, identity::VALID);
    while let Some(event) = events.recv().await {
        if let Event::Enrol { frame, mut replies, .. } = event {
            let _ = replies.send(desk.answer(frame).await).await;
            replies.finish();
        }
    }
}

fn refusal(joined: Result<NodeIdentity, EnrolError>) -> String {
    match joined {
        Err(EnrolError::Refused(refusal)) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_joins_with_an_invitation_once_and_keeps_what_it_became() {
    let mut site = Site::new(1);
    let token = site.invite(3600);
    let joined = site.join(OTHERS[0], &token, newcomer("press-hall", 2)).unwrap();
    assert_eq!((joined.node.as_str(), joined.site.as_str(), joined.founder), ("press-hall", "plant", false));
    assert!(refusal(site.join(OTHERS[1], &token, newcomer("oven", 3))).contains("used already"));
    // What it became is on its disk, and the power of the disk may go.
    site.world.power_off(FOUNDER);
    let env = site.world.boot(OTHERS[0]);
    let inside = env.clone();
    let loaded = site.wait(OTHERS[0], &env, async move {
        let disk = inside.disk.clone();
        inside.unblock(move || (NodeIdentity::load(disk.as_ref()), files::raise_incarnation(disk.as_ref()))).await
    });
    let (loaded, incarnation) = loaded.unwrap();
    let loaded = loaded.unwrap().unwrap();
    assert_eq!((loaded.origin, loaded.chain), (joined.origin, joined.chain));
    assert_eq!(incarnation.unwrap(), Incarnation(1));
}

#[test]
fn an_invitation_that_expired_is_refused_with_its_time() {
    let mut site = Site::new(2);
    let token = site.invite(30);
    assert!(refusal(site.join(OTHERS[0], &token, newcomer("late", 2))).contains("expired at 20"));
}

#[test]
fn two_nodes_cannot_have_one_origin() {
    let mut site = Site::new(3);
    let (first, second) = (site.invite(3600), site.invite(3600));
    site.join(OTHERS[0], &first, newcomer("one", 2)).unwrap();
    assert!(refusal(site.join(OTHERS[1], &second, newcomer("two", 2))).contains("belongs to another node"));
    // The invitation was not used up by that.
    site.join(OTHERS[1], &second, newcomer("two", 3)).unwrap();
}

#[test]
fn who_asks_at_a_node_of_another_authority_says_nothing() {
    let mut site = Site::new(4);
    let token = Token { authority: [0; 32], ..site.invite(3600) };
    let joined = site.join(OTHERS[0], &token, newcomer("lost", 2));
    assert!(matches!(joined, Err(EnrolError::Reach(_))), "{joined:?}");
}

#[test]
fn a_certificate_is_renewed_though_it_has_expired() {
    let mut site = Site::new(5);
    let token = site.invite(3600);
    let old = site.join(OTHERS[0], &token, newcomer("long-away", 2)).unwrap();
    let now = site.world.now();
    for host in [FOUNDER, OTHERS[0]] {
        site.world.clock(host).step(now, Span::from_secs(400 * DAY));
    }
    // The founder's own has expired too: it renews itself before it serves.
    site.world.kill(FOUNDER);
    let founder = site.world.boot(FOUNDER);
    let env = founder.clone();
    let renewed = site.wait(FOUNDER, &founder, async move {
        let inside = env.clone();
        env.unblock(move || identity::renew_founder(&inside, identity::VALID)).await.unwrap()
    });
    site.world.enter(FOUNDER, || founder.clone().spawn(serve_desk(founder, renewed.unwrap())));
    let env = site.world.boot(OTHERS[0]);
    let inside = env.clone();
    let renewed = site.wait(OTHERS[0], &env, async move {
        let identity = NodeIdentity::load(inside.disk.as_ref()).unwrap().unwrap();
        assert!(inside.wall() > identity.expires);
        identity::renew(&inside, "renew", &provider(&inside, "renew"), &[founder_addr()], &identity).await
    });
    let renewed = renewed.unwrap();
    assert_eq!(renewed.origin, old.origin);
    assert!(renewed.expires > old.expires.saturating_add(Span::from_secs(399 * DAY)));
}
