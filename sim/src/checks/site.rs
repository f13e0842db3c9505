//! The promises of a site: its nodes keep them together, so they are held against all journals and copies at once. A reading that a
//! device was told is safe may stand in the journal of another node than the one that it belongs to, and the pane of a window is what the
//! shares of all nodes come to.
//!
//! What a checker takes for known: clocks of nodes are right within a second, and a node that was up for a minute before the end, without a
//! fault, has caught up.

mod book;
mod converges;
mod ledger;
mod lost;
mod panes;
mod twice;
mod twins;

use std::collections::{BTreeMap, BTreeSet};

use millpond_core::{
    batch::Batch,
    block,
    ids::{Origin, Seq},
    record::Class,
};
use millpond_store::{Held, Reader, Replica};

pub(super) use self::{
    book::{Book, Reading, Row, sequence_of},
    converges::is_settled,
    panes::{Name, describe, told_by, uncertain},
    twice::cut_off,
};
use super::{Found, tally::Findings};
use crate::{
    evidence::{Evidence, Life, NodeEvidence},
    promise::{Broken, Promise},
};

/// What a site's nodes have on their disks.
pub(super) struct Site<'a> {
    pub evidence: &'a Evidence,
    pub members: Vec<Member<'a>>,
    /// Journals that are there, with the number of the member that has them.
    pub journals: BTreeMap<Life, (usize, Book)>,
    /// Journals that are gone, as far as all copies of them together reach.
    pub lost: BTreeMap<Life, Book>,
}

pub(super) struct Member<'a> {
    pub node: &'a NodeEvidence,
    reader: Reader,
    pub copies: BTreeMap<Life, Copy>,
    /// Copies that could not be read, and why.
    unreadable: Vec<String>,
}

pub(super) struct Copy {
    pub reader: Reader,
    pub held: Held,
    pub book: Book,
}

/// Checks what the nodes of a site have promised together. A site of which a journal cannot be read is not checked: that was said.
pub fn check(name: &str, evidence: &Evidence, found: &mut Found) -> Vec<Broken> {
    let nodes: Vec<&NodeEvidence> = evidence.nodes.iter().filter(|node| evidence.site_of(node) == Some(name)).collect();
    let site = match Site::read(nodes, evidence) {
        Ok(Some(site)) => site,
        Ok(None) => return Vec::new(),
        Err(why) => {
            let mut said = Findings::new(Promise::LedgerCloses, name);
            said.say(why);
            return said.finish();
        }
    };
    let mut broken = Vec::new();
    for promise in &evidence.scenario.promises {
        let mut said = Findings::new(*promise, name);
        match promise {
            Promise::NothingLost => lost::check(&site, &mut said),
            Promise::NothingTwice => found.stored_again += twice::check(&site, &mut said),
            Promise::PanesAgree => found.panes_compared += panes::check(&site, &mut said),
            Promise::Converges => converges::check(&site, &mut said),
            Promise::LedgerCloses => ledger::closes(&site, &mut said),
            Promise::NobodyImpersonates => ledger::nobody_impersonates(&site, &mut said),
            Promise::TwinNeverLost => found.epoch = found.epoch.max(twins::check(&site, &mut said)),
            Promise::StaysBounded
            | Promise::AlertsOnce
            | Promise::HealthIsHonest
            | Promise::KeepsToTerms
            | Promise::CausalOrder
            | Promise::EdgeAndCloudAgree
            | Promise::LiveFirst
            | Promise::BudgetIsTrue
            | Promise::OnceInTheLake
            | Promise::CanaryFirst => {}
        }
        broken.extend(said.finish());
    }
    broken
}

impl<'a> Site<'a> {
    /// `None` when the journal of a node cannot be opened.
    pub fn read(nodes: Vec<&'a NodeEvidence>, evidence: &'a Evidence) -> Result<Option<Site<'a>>, String> {
        let mut site = Site { evidence, members: Vec::new(), journals: BTreeMap::new(), lost: BTreeMap::new() };
        for (number, node) in nodes.into_iter().enumerate() {
            let Ok(reader) = node.reader() else { return Ok(None) };
            for (incarnation, book) in Book::read(&reader, &evidence.witness)? {
                site.journals.insert((node.life.0, incarnation), (number, book));
            }
            site.journals.entry(node.life).or_insert_with(|| (number, Book::default()));
            let mut member = Member { node, reader, copies: BTreeMap::new(), unreadable: Vec::new() };
            for copy in &node.copies {
                match &copy.replica {
                    Ok(replica) => drop(member.copies.insert(copy.life, Copy::read(replica, evidence)?)),
                    Err(why) => member.unreadable.push(format!("of {}: {why}", short(copy.life))),
                }
            }
            site.members.push(member);
        }
        let Site { members, journals, lost, .. } = &mut site;
        let origins: BTreeSet<Origin> = members.iter().map(|member| member.node.life.0).collect();
        for (life, copy) in members.iter().flat_map(|member| &member.copies) {
            if origins.contains(&life.0) && !journals.contains_key(life) {
                lost.entry(*life).or_default().absorb(&copy.book);
            }
        }
        Ok(Some(site))
    }

    pub fn is_of_member(&self, life: Life) -> bool {
        self.members.iter().any(|member| member.node.life.0 == life.0)
    }

    /// Each life once.
    pub fn books(&self) -> impl Iterator<Item = (Life, &Book)> {
        let lost = self.lost.iter().map(|(life, book)| (*life, book));
        self.journals.iter().map(|(life, (_, book))| (*life, book)).chain(lost)
    }

    /// Each record of events once.
    fn each_batch(&self, mut each: impl FnMut(Life, u64, &Batch)) -> Result<(), String> {
        let mut decoder = block::Decoder::new();
        let mut scan = |reader: &Reader, wanted: &mut dyn FnMut(u64) -> bool, each: &mut dyn FnMut(u64, &Batch)| {
            let scan = reader.scan(Class::Raw, Seq(0), |row| {
                if wanted(row.seq.0)
                    && let Ok(batch) = decoder.decode(row.payload)
                {
                    each(row.seq.0, &batch);
                }
                std::ops::ControlFlow::Continue(())
            });
            scan.map_err(|error| error.to_string())
        };
        for member in &self.members {
            scan(&member.reader, &mut |_| true, &mut |record, batch| each(member.node.life, record, batch))?;
        }
        for life in self.lost.keys() {
            let mut seen = BTreeSet::new();
            for copy in self.members.iter().filter_map(|member| member.copies.get(life)) {
                scan(&copy.reader, &mut |seq| seen.insert(seq), &mut |record, batch| each(*life, record, batch))?;
            }
        }
        Ok(())
    }

    /// The member to which a life belongs, or did.
    pub fn member_of(&self, life: Life) -> Option<&Member<'a>> {
        self.members.iter().find(|member| member.node.life.0 == life.0)
    }

    /// Members that know of all journals. One that came back without its disk does not ask for what it wrote before, and answers without it.
    pub fn witnesses(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter().filter(|member| !self.lost.keys().any(|life| life.0 == member.node.life.0))
    }

    /// How many other nodes are to hold the events of a member.
    fn replicas_of(&self, member: &Member<'_>) -> usize {
        (member.node.config.site.replicas as usize).min(self.members.len().saturating_sub(1))
    }
}

impl Copy {
    pub fn read(replica: &Replica, evidence: &Evidence) -> Result<Copy, String> {
        let (reader, held) = (replica.reader(), replica.held().clone());
        let book = Book::of_copy(&reader, &evidence.witness)?;
        Ok(Copy { reader, held, book })
    }

    /// Whether a record is here, or was and gave way.
    fn accounts_for(&self, class: Class, seq: u64) -> bool {
        self.book.records.contains_key(&seq) || seq <= self.held.class_floor(class).0
    }
}

/// A life for a reader.
pub(super) fn short((origin, incarnation): Life) -> String {
    format!("{}/{}", origin.short(), incarnation.0)
}
