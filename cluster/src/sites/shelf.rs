//! The copies of other sites' records: `sites/NAME/`, a file for each life as in `replicas/`, and what the site said of its windows.
//!
//! They stay when a site is not trusted any more, until somebody removes the folder.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use millpond_actors::site::Copy;
use millpond_core::{record, window::WindowSpec};
use millpond_env::Env;
use millpond_proto::{
    RangeSet,
    replication::{Life, RunKey},
    wire::Run,
};
use millpond_store::{ReplicaCommit, Retention};
use tracing::error;

use crate::{
    identity::is_file_name,
    mesh::{copies, life_of},
};

/// Where the copies lie on a node's disk.
pub const FOLDER: &str = "sites";
const WINDOWS: &str = "windows";

pub(crate) struct Shelf {
    env: Env,
    retention: Retention,
    sites: Mutex<BTreeMap<String, Held>>,
}

#[derive(Default)]
struct Held {
    copies: BTreeMap<Life, copies::Open>,
    windows: Vec<WindowSpec>,
}

impl Shelf {
    /// Opens what earlier lives left here. What cannot be opened is left alone, and told in the log. Blocks.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn open(env: Env, retention: Retention) -> io::Result<Shelf> {
        let mut sites: BTreeMap<String, Held> = BTreeMap::new();
        for site in env.disk.list(FOLDER)?.into_iter().filter(|site| is_file_name(site)) {
            let mut held = Held::default();
            for life in env.disk.list(&format!("{FOLDER}/{site}"))?.iter().filter_map(|name| life_of(name)) {
                match copies::open_at(&env.disk, path_of(&site, life), life) {
                    Ok(open) => drop(held.copies.insert(life, open)),
                    Err(error) => {
                        error!(site, origin = %life.origin, %error, "the copy of another site's records could not be opened")
                    }
                }
            }
            let windows = env.disk.read(&format!("{FOLDER}/{site}/{WINDOWS}"))?;
            held.windows = windows.and_then(|bytes| record::decode(&bytes).ok()).unwrap_or_default();
            sites.insert(site, held);
        }
        Ok(Shelf { env, retention, sites: Mutex::new(sites) })
    }

    /// What is on disk of a site. Blocks.
    pub fn held(&self, site: &str) -> Vec<(Life, millpond_core::record::Track, RangeSet)> {
        let sites = self.sites();
        let copies = sites.get(site).into_iter().flat_map(|held| &held.copies);
        let tracks = copies.flat_map(|(life, open)| {
            let replica = open.replica.lock().unwrap_or_else(PoisonError::into_inner);
            let held = replica.held();
            millpond_core::record::Track::ALL.map(|track| (*life, track, held.track(track).clone()))
        });
        tracks.collect()
    }

    /// The copies of a site and how its windows are defined; `None` when there is nothing of it.
    pub fn copies(&self, site: &str) -> Option<(Vec<Copy>, Vec<WindowSpec>)> {
        let sites = self.sites();
        let held = sites.get(site)?;
        let copy = |(life, open): (&Life, &copies::Open)| Copy {
            origin: life.origin,
            incarnation: life.incarnation,
            reader: open.reader.clone(),
            // Who asks looks for it.
            left_out: millpond_core::ids::Seq(0),
        };
        Some((held.copies.iter().map(copy).collect(), held.windows.clone()))
    }

    /// The sites of which something is here, with the lives of each.
    pub fn all(&self) -> Vec<(String, Vec<(Life, copies::Open)>)> {
        let of_site = |held: &Held| held.copies.iter().map(|(life, open)| (*life, open.clone())).collect();
        self.sites().iter().map(|(site, held)| (site.clone(), of_site(held))).collect()
    }

    /// The copy of a life, founded when there is none. Blocks.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn copy(&self, site: &str, life: Life) -> Result<copies::Open, String> {
        if let Some(open) = self.sites().get(site).and_then(|held| held.copies.get(&life)) {
            return Ok(open.clone());
        }
        let open = copies::open_at(&self.env.disk, path_of(site, life), life);
        let open = open.map_err(|error| error.to_string())?;
        self.sites().entry(site.to_owned()).or_default().copies.insert(life, open.clone());
        Ok(open)
    }

    /// Stores a run; returns how many records of it are new. Blocks.
    ///
    /// # Errors
    /// When the disk refuses. Nothing of the run is there then.
    pub fn keep(&self, site: &str, run: Run) -> Result<u64, String> {
        let life = RunKey::of(&run).life;
        let open = self.copy(site, life)?;
        let commit = ReplicaCommit {
            runs: vec![copies::replica_run(run)],
            retain: Some(self.retention),
            now_ms: self.env.wall().as_millis(),
            ..ReplicaCommit::default()
        };
        let mut replica = open.replica.lock().unwrap_or_else(PoisonError::into_inner);
        replica.commit(&commit).map(|committed| committed.records).map_err(|error| error.to_string())
    }

    /// Keeps how a site's windows are defined, when that has changed. Blocks.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn keep_windows(&self, site: &str, windows: Vec<WindowSpec>) -> io::Result<()> {
        if self.sites().get(site).is_some_and(|held| held.windows == windows) {
            return Ok(());
        }
        self.env.disk.write(&format!("{FOLDER}/{site}/{WINDOWS}"), &record::encode(&windows))?;
        self.sites().entry(site.to_owned()).or_default().windows = windows;
        Ok(())
    }

    fn sites(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn path_of(site: &str, life: Life) -> String {
    format!("{FOLDER}/{site}/{}-{}.redb", life.origin, life.incarnation.0)
}
