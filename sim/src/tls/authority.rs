//! Certificates that are the same in every run of a seed.

use std::{collections::BTreeMap, sync::Arc};

use millpond_cluster::{
    identity::{self, IdentityError, Key, Member, NodeIdentity, Order, Trusted},
    quic::Identity,
};
use millpond_core::{
    ids::{Incarnation, Origin},
    record::Class,
    time::Span,
};
use millpond_env::Disk;
use millpond_proto::sites::terms::Terms;

use crate::world::{clock::EPOCH, core::seed_of};

/// Issues the certificates of a simulated site, on the day on which worlds begin.
pub struct Authority {
    seed: u64,
    authority: identity::Authority,
}

impl Authority {
    pub fn new(seed: u64) -> Authority {
        Authority::named(seed, "site")
    }

    /// The authority of a site of this name.
    pub fn named(seed: u64, site: &str) -> Authority {
        let key = Key::new(seed_of(seed, "certificate/authority"));
        Authority { seed, authority: identity::Authority::found(site, &key, EPOCH) }
    }

    /// The site as another one trusts it.
    pub fn trusted(&self, terms: Terms, addresses: Vec<String>) -> Trusted {
        let authority = self.authority.certificate().clone();
        let site = self.node("anybody").site.clone();
        Trusted { site, authority, terms, addresses, take: Class::ALL.to_vec(), uplink: Vec::new(), budget: None }
    }

    /// Certificates are valid for so long.
    #[must_use]
    pub fn with_validity(self, valid: Span) -> Authority {
        Authority { authority: self.authority.with_validity(valid), ..self }
    }

    /// Who `name` is, by this authority. The same name gets the same origin, key and certificate each time.
    pub fn issue(&self, name: &str) -> Identity {
        self.node(name).tls()
    }

    /// See [`Authority::issue`].
    pub fn node(&self, name: &str) -> Arc<NodeIdentity> {
        self.node_as(self.origin(name), name)
    }

    /// The same as files on the box.
    pub fn papers(&self, name: &str) -> Arc<Papers> {
        let key = Key::new(seed_of(self.seed, &format!("certificate/{name}")));
        Arc::new(Papers { key, identity: self.node(name), founds: None })
    }

    /// Those of the box where the site of these nodes was founded: it issues their certificates from now on.
    pub fn founding_papers<'a>(&self, name: &str, members: impl Iterator<Item = &'a str>) -> Arc<Papers> {
        let key = |name: &str| Key::new(seed_of(self.seed, name));
        let member = |name: &str| {
            let public_key = key(&format!("certificate/{name}")).public();
            (self.origin(name), Member { public_key, node: name.to_owned() })
        };
        let founds = Some((key("certificate/authority"), members.map(member).collect()));
        Arc::new(Papers { key: key(&format!("certificate/{name}")), identity: self.node(name), founds })
    }

    /// The origin that `name` gets.
    pub fn origin(&self, name: &str) -> Origin {
        let mut origin = [0; 16];
        origin.copy_from_slice(&seed_of(self.seed, &format!("origin/{name}"))[..16]);
        Origin(origin)
    }

    /// A certificate by which `name` is `origin`, its own or that of somebody else.
    ///
    /// # Panics
    /// Never: what an authority issues is sound.
    pub fn node_as(&self, origin: Origin, name: &str) -> Arc<NodeIdentity> {
        let key = Key::new(seed_of(self.seed, &format!("certificate/{name}")));
        let order = Order { origin, node: name, public_key: key.public(), now: EPOCH };
        let certificate = self.authority.issue(&order);
        let authority = self.authority.certificate().clone();
        let identity = NodeIdentity::new(certificate, &key, authority, Incarnation(1));
        Arc::new(identity.expect("what an authority issues is sound"))
    }
}

/// What makes a box one of a site: a key, a certificate for it, and the authority's.
#[derive(Debug)]
pub struct Papers {
    key: Key,
    identity: Arc<NodeIdentity>,
    /// Where the site was founded: the authority's key, and whom it has certified.
    founds: Option<(Key, BTreeMap<Origin, Member>)>,
}

impl Papers {
    /// Enrols a box that has none; one that has lost its disk comes back as the same node with another store.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn install(&self, disk: &dyn Disk, lost_disks: u32) -> Result<(), IdentityError> {
        if NodeIdentity::load(disk).is_ok_and(|there| there.is_some()) {
            return Ok(());
        }
        let [certificate, authority] = &self.identity.chain[..] else { return Ok(()) };
        if let Some((key, members)) = &self.founds {
            identity::files::save_authority(disk, key, members)?;
        }
        identity::files::install(disk, &self.key, certificate, authority, Incarnation(lost_disks))
    }
}
