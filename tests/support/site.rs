//! A site of real nodes, enrolled with the commands that an operator uses.

use std::{
    cell::Cell,
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{MILLPOND, Node, arguments, folder, run};

/// A place where a node lives, started or not.
pub struct Place {
    folder: TempDir,
    /// Where the others reach it: any free port at the first start, and that one from then on.
    door: Cell<SocketAddr>,
    pub name: &'static str,
    pub origin: String,
}

impl Place {
    fn new(name: &'static str) -> Place {
        Place { folder: folder(), door: Cell::new(([127, 0, 0, 1], 0).into()), name, origin: String::new() }
    }

    /// The first node of a site. It runs, or nobody could join.
    pub fn found(site: &str, name: &'static str, config: &Path, set: &[&str]) -> (Place, Node) {
        let mut place = Place::new(name);
        let origin =
            run(Command::new(MILLPOND).args(["site", "init", site, "--node", name, "--data"]).arg(place.data()));
        place.origin = origin.trim().to_owned();
        let node = place.start(config, set);
        (place, node)
    }

    /// Another node, let in by the first.
    pub fn join(founder: &Place, name: &'static str) -> Place {
        let token = founder.invite();
        Place::join_with(&token, name)
    }

    pub fn join_with(token: &str, name: &'static str) -> Place {
        let mut place = Place::new(name);
        let origin =
            run(Command::new(MILLPOND).args(["node", "join", token, "--name", name, "--data"]).arg(place.data()));
        place.origin = origin.trim().to_owned();
        place
    }

    pub fn invite(&self) -> String {
        run(Command::new(MILLPOND).args(["node", "invite", "--data"]).arg(self.data())).trim().to_owned()
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts its node; what it says goes to [`words`](Self::words).
    pub fn start(&self, config: &Path, set: &[&str]) -> Node {
        let name = format!("node.name={}", self.name);
        let door = format!("site.listen={}", self.door.get());
        let set: Vec<&str> = [door.as_str(), name.as_str()].into_iter().chain(set.iter().copied()).collect();
        let mut command = Command::new(MILLPOND);
        arguments(&mut command, &self.data(), Some(config), &set);
        let log = File::options().create(true).append(true).open(self.log()).expect("a file");
        command.env("MILLPOND_LOG", "warn,millpond_cluster=debug").stderr(log);
        let node = Node::launch(command);
        self.door.set(node.site.expect("it is in a site"));
        node
    }

    /// What its nodes have said so far.
    pub fn words(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let words = self.words();
            let last: Vec<&str> = words.lines().rev().take(40).collect();
            eprintln!("what {} said last:", self.name);
            last.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// Three nodes that all know each other.
pub fn three(config: &Path, set: &[&str]) -> ([Place; 3], [Node; 3]) {
    let (north, first) = Place::found("mill", "north", config, set);
    let (south, west) = (Place::join(&north, "south"), Place::join(&north, "west"));
    let nodes = [first, south.start(config, set), west.start(config, set)];
    for node in &nodes {
        has_members(node, 3);
    }
    ([north, south, west], nodes)
}

/// Waits until a node sees so many up, itself included, and is linked to all of them.
pub fn has_members(node: &Node, many: u32) {
    node.wait_for("the members of the site", |node| {
        let (members, links) = (node.metric("millpond_site_members"), node.metric("millpond_site_links"));
        (members == f64::from(many) && links == f64::from(many - 1)).then_some(())
    });
}
