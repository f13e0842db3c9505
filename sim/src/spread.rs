//! How long a change takes to every box of a large site: boxes that do nothing else, on a good network, in simulated time.
//!
//! The change is made at one box by HTTP, and every box is asked by HTTP until its answer has it, as somebody would who sits in front of
//! all of them at once.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use millpond_actors::config::Config;
use millpond_core::time::Span;
use millpond_env::Env;
use millpond_gateway::client::http::HttpClient;
use serde_json::json;

use crate::{
    site::{Node, Phase},
    tls::Authority,
    world::{HostSpec, World, core::HostId, disk::DiskSpec, net::LinkSpec},
};

const TOKEN: &str = "a token";
const SITE_PORT: u16 = 7800;
/// Pause between two questions to a box.
const LOOK_EVERY: Span = Span::from_millis(5);
/// Pause before the first change, and by how much longer each next one is, so that they fall between different ticks of the boxes.
const BETWEEN: Span = Span::from_secs(1);
const LATER: Span = Span::from_millis(37);
/// Nothing that is waited for may take longer.
const PATIENCE: Span = Span::from_secs(120);
/// Boxes whose addresses the others are told; they hear of the rest from these.
const SEEDS: usize = 3;

/// What came of it, in simulated time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// From the first power to a site in which each box is linked with each.
    pub joined: Span,
    /// Of each change, from the question at one box to the answer of the last one that had it.
    pub reached: Vec<Span>,
}

/// The wait did not end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    #[error("{linked} of {boxes} boxes were linked with all others within {PATIENCE}")]
    Apart { linked: usize, boxes: usize },
    #[error("change {number} had reached {reached} of {boxes} boxes within {PATIENCE}")]
    Change { number: u32, reached: usize, boxes: usize },
}

/// Makes a site of so many boxes, and changes a device of its registry so often, at one box after the other.
///
/// # Errors
/// When the site does not come together, or a change does not get everywhere.
pub fn spread(seed: u64, boxes: u16, changes: u32) -> Result<Spread, Stuck> {
    let mut town = Town::new(seed, boxes);
    let joined = town.join()?;
    let mut reached = Vec::new();
    for number in 0..changes {
        town.run(Span(BETWEEN.0 + i64::from(number) * LATER.0));
        reached.push(town.change(number)?);
    }
    Ok(Spread { joined, reached })
}

/// The boxes, and a place from which all of them can be asked.
struct Town {
    world: World,
    nodes: Vec<Node>,
    outside: HostId,
    env: Env,
}

impl Town {
    fn new(seed: u64, boxes: u16) -> Town {
        let mut world = World::new(seed, 0.0);
        world.network().set_default(LinkSpec { latency: (Span(150_000), Span(900_000)), ..LinkSpec::default() });
        let outside = world.add(host("outside".to_owned(), 0, None));
        let authority = Authority::new(seed);
        let names: Vec<String> = (1..=boxes).map(|number| format!("box-{number:02}")).collect();
        let mut nodes = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let id = world.add(host(name.clone(), at as u32 + 1, Some(DiskSpec::default())));
            let mut config = Config::default();
            config.node.name.clone_from(name);
            let seeds = names.iter().take(SEEDS).filter(|mate| *mate != name);
            config.site.seeds = seeds.map(|mate| format!("{mate}:{SITE_PORT}")).collect();
            let mut node = Node::new(name.clone(), id, config, 2, Span::from_secs(1), TOKEN);
            node.papers = Some(authority.papers(name));
            nodes.push(node);
        }
        let env = world.boot(outside);
        nodes.iter_mut().for_each(|node| node.start(&mut world));
        Town { world, nodes, outside, env }
    }

    fn run(&mut self, span: Span) {
        let until = self.world.now().after(span.0 as u64);
        while self.world.step(until).is_some() {}
    }

    fn join(&mut self) -> Result<Span, Stuck> {
        let links = self.nodes.len() as f64 - 1.0;
        let is_linked =
            |node: &&Node| node.phase() == Phase::Up && node.metrics().get("millpond_site_links") == Some(&links);
        loop {
            let (linked, boxes) = (self.nodes.iter().filter(is_linked).count(), self.nodes.len());
            let now = Span(self.world.now().0 as i64);
            if linked == boxes {
                return Ok(now);
            }
            if now >= PATIENCE {
                return Err(Stuck::Apart { linked, boxes });
            }
            self.run(Span::from_millis(500));
        }
    }

    fn change(&mut self, number: u32) -> Result<Span, Stuck> {
        let boxes = self.nodes.len();
        let begun = self.env.now();
        // When each box that has it was seen to have it.
        let seen: Arc<Mutex<Vec<Span>>> = Arc::default();
        let path = format!("/v1/devices/press-{number}");
        let client = |node: &Node| {
            HttpClient::new(self.env.clone(), &format!("http://{}:8080", node.name), Some(TOKEN)).expect("an address")
        };
        let (writer, body, put) =
            (client(&self.nodes[number as usize % boxes]), json!({ "place": number }), path.clone());
        self.world.enter(self.outside, || {
            self.env.spawn(async move {
                // A box that refuses shows as one that never has it.
                let _ = writer.ask("PUT", &put, Some(Bytes::from(body.to_string()))).await;
            });
            for node in &self.nodes {
                let (reader, path, env, seen) = (client(node), path.clone(), self.env.clone(), seen.clone());
                self.env.spawn(async move {
                    while !reader.get(&path).await.is_ok_and(|device| device["place"] == number) {
                        if env.now().since(begun) >= PATIENCE {
                            return;
                        }
                        env.sleep(LOOK_EVERY).await;
                    }
                    seen.lock().expect("nobody panics here").push(env.now().since(begun));
                });
            }
        });
        let until = self.world.now().after(PATIENCE.0 as u64);
        loop {
            let reached = seen.lock().expect("nobody panics here").len();
            if reached == boxes {
                return Ok(seen.lock().expect("nobody panics here").iter().copied().max().unwrap_or_default());
            }
            if self.world.step(until).is_none() {
                return Err(Stuck::Change { number, reached, boxes });
            }
        }
    }
}

fn host(name: String, number: u32, disk: Option<DiskSpec>) -> HostSpec {
    let address = IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + number));
    HostSpec { name, address, clock_offset: Span::ZERO, clock_ppm: 0.0, disk }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_reaches_ten_boxes_within_three_seconds_and_the_same_in_every_run() {
        let spread = super::spread(1, 10, 3).expect("it gets everywhere");
        assert_eq!(spread.reached.len(), 3);
        assert!(spread.reached.iter().all(|span| *span > Span::ZERO && *span < Span::from_secs(3)), "{spread:?}");
        assert_eq!(super::spread(1, 10, 3), Ok(spread));
    }
}
