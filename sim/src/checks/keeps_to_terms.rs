//! A box that fetches another site's records has all that it may have, once, and nothing else.
//!
//! What it may have is counted from the journals of the other site, part by part: a row of a block, a pane, an alert, whatever else a
//! record lists. A part is named by its device, and allowed when its class is and its device is; what is of a group of devices is allowed
//! with all devices only.
//!
//! Not asked for: what the other site wrote within a minute before the end, and whether a cloud still has in its copies what it has archived. What its journals gave up is not compared, but still must
//! be allowed. The boxes of a site that are asked have the same terms.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, Hash},
    ops::ControlFlow,
};

use foldhash::fast::FixedState;
use millpond_core::{
    alert::Alert,
    block,
    ids::Seq,
    record::{self, Class, Home, LeftOut, RecordKind},
    rule::{Condition, RuleSpec},
    schema::Pattern,
    window::{GroupBy, LateEvent, Pane},
};
use millpond_proto::{sites::terms::class_of, twin::Reported};
use millpond_store::{Reader, RecordRef};

use super::{
    cloud,
    tally::{Findings, Tally},
};
use crate::{
    evidence::{Evidence, Life, NodeEvidence},
    promise::{Broken, Promise},
    scenario::TrustSpec,
    world::clock::EPOCH,
};

/// By then what was written is there.
const ARRIVES_MS: i64 = 60_000;

/// By record and digest, how often.
type Parts = BTreeMap<(u64, u64), u64>;

/// Records of another site that a box has, part by part; and how many parts of all boxes were compared.
pub fn check(evidence: &Evidence) -> (Vec<Broken>, u64) {
    let (mut broken, mut compared) = (Vec::new(), 0);
    for node in &evidence.nodes {
        let mut said = Findings::new(Promise::KeepsToTerms, &node.name);
        compared += of_node(node, evidence, &mut said);
        broken.extend(said.finish());
    }
    (broken, compared)
}

fn trusts_of<'a>(evidence: &'a Evidence, name: &str) -> &'a [TrustSpec] {
    evidence.scenario.nodes.iter().find(|spec| spec.name == name).map_or(&[], |spec| &spec.trusts)
}

fn of_node(node: &NodeEvidence, evidence: &Evidence, said: &mut Findings) -> u64 {
    let (mut missing, mut more, mut unasked, mut unreadable) =
        (Tally::default(), Tally::default(), Tally::default(), Tally::default());
    let own_site = evidence.site_of(node).unwrap_or_default();
    let is_cloud = evidence.scenario.cloud_of(own_site).is_some_and(|cloud| cloud.name == node.name);
    let brings = |giver: &&NodeEvidence| is_cloud && cloud::uplink_of(evidence, &giver.name, own_site).is_some();
    let is_brought = |site: &str| {
        let of_site = evidence.nodes.iter().filter(|giver| evidence.site_of(giver) == Some(site));
        of_site.into_iter().any(|giver| brings(&giver))
    };
    let taken: Vec<&TrustSpec> = trusts_of(evidence, &node.name)
        .iter()
        .filter(|trust| !trust.from.is_empty() || is_brought(&trust.site))
        .collect();
    let mut compared = 0;
    for copy in &node.others {
        if let Err(why) = &copy.replica {
            unreadable.add(|| why.clone());
        }
        if !taken.iter().any(|trust| trust.site == copy.site) {
            unasked.add(|| copy.site.clone());
        }
    }
    for trust in taken {
        let givers: Vec<&NodeEvidence> =
            evidence.nodes.iter().filter(|other| evidence.site_of(other) == Some(&trust.site)).collect();
        let asked = trust.from.iter().map(|name| &**name);
        let mut asked = asked.chain(givers.iter().filter(|giver| brings(giver)).map(|giver| &*giver.name));
        let terms = asked.find_map(|name| trusts_of(evidence, name).iter().find(|trust| trust.site == own_site));
        for giver in givers {
            let Ok(journal) = giver.reader() else { continue };
            let gate = Gate::new(terms, giver);
            let copies = node.others.iter().filter(|copy| copy.site == trust.site && copy.life == giver.life);
            let readers: Vec<Reader> =
                copies.filter_map(|copy| copy.replica.as_ref().ok()).map(|replica| replica.reader()).collect();
            // What a cloud has archived may have gone from its copies.
            let early = EPOCH.as_millis() + (evidence.stopped().0 / 1_000_000) as i64 - ARRIVES_MS;
            let archived = node.archived(&trust.site, giver.life);
            let is_excused = |row: &RecordRef<'_>| {
                row.hlc.wall_ms() > early || (row.kind == RecordKind::Events && archived.contains(row.seq.0))
            };
            let counted = compare(giver.life, &journal, &readers, &gate, is_excused, &mut missing, &mut more);
            compared += counted.unwrap_or_else(|why| {
                unreadable.add(|| why);
                0
            });
        }
    }
    said.tell(&unreadable, "copies of another site's records cannot be read");
    said.tell(&unasked, "copies are of a site of which nothing is fetched");
    said.tell(&missing, "parts of records that the box may have are not there");
    said.tell(&more, "parts of records are there that the box may not have, or are there twice");
    compared
}

/// What may leave a site.
struct Gate {
    classes: Vec<Class>,
    devices: Vec<String>,
    /// Windows and rules whose keys are devices.
    by_device: BTreeSet<String>,
}

impl Gate {
    fn new(terms: Option<&TrustSpec>, giver: &NodeEvidence) -> Gate {
        let windows = giver.config.windows.iter().filter(|window| window.by == GroupBy::Device);
        let windows: Vec<String> = windows.map(|window| format!("window {}", window.name)).collect();
        let of_device = |rule: &&RuleSpec| match &rule.when {
            Condition::Window { window, .. } => windows.contains(&format!("window {window}")),
            _ => true,
        };
        let rules = giver.config.rules.iter().filter(of_device).map(|rule| format!("rule {}", rule.name));
        let rules: Vec<String> = rules.collect();
        Gate {
            classes: terms.map(|terms| terms.classes.clone()).unwrap_or_default(),
            devices: terms.map(|terms| terms.devices.clone()).unwrap_or_default(),
            by_device: windows.into_iter().chain(rules).collect(),
        }
    }

    fn allows(&self, class: Class, device: Option<&str>) -> bool {
        let all = self.devices.iter().any(|pattern| pattern == "*");
        let device = || match device {
            Some(device) => self.devices.iter().any(|pattern| Pattern::new(pattern).matches(device)),
            None => false,
        };
        self.classes.contains(&class) && (all || device())
    }
}

fn compare(
    life: Life,
    journal: &Reader,
    copies: &[Reader],
    gate: &Gate,
    is_excused: impl Fn(&RecordRef<'_>) -> bool,
    missing: &mut Tally,
    more: &mut Tally,
) -> Result<u64, String> {
    let (mut allowed, mut excused, mut known) = (Parts::new(), BTreeSet::new(), BTreeSet::new());
    each(journal, |row| {
        known.insert(row.seq.0);
        if is_excused(row) {
            excused.insert(row.seq.0);
        }
        parts(row, gate, |device, digest| {
            let may = gate.allows(class_of(row.kind), device) || row.kind == RecordKind::DropRange;
            if may && gate.classes.contains(&class_of(row.kind)) {
                *allowed.entry((row.seq.0, digest)).or_default() += 1;
            }
        });
    })?;
    let mut found = Parts::new();
    for copy in copies {
        each(copy, |row| {
            parts(row, gate, |device, digest| {
                *found.entry((row.seq.0, digest)).or_default() += 1;
                let may = gate.allows(class_of(row.kind), device) || row.kind == RecordKind::DropRange;
                if !known.contains(&row.seq.0) && !may {
                    more.add(|| format!("record {} of {}", row.seq.0, life.0.short()));
                }
            });
        })?;
    }
    for (part, times) in &allowed {
        if found.get(part).unwrap_or(&0) < times && !excused.contains(&part.0) {
            missing.add(|| format!("record {} of {}", part.0, life.0.short()));
        }
    }
    for (part, times) in found.iter().filter(|(part, _)| known.contains(&part.0)) {
        if *times > *allowed.get(part).unwrap_or(&0) {
            more.add(|| format!("record {} of {}", part.0, life.0.short()));
        }
    }
    Ok(found.values().sum())
}

fn each(reader: &Reader, mut f: impl FnMut(&RecordRef<'_>)) -> Result<(), String> {
    for class in Class::ALL {
        let scan = reader.scan(class, Seq(0), |row| {
            f(&row);
            ControlFlow::Continue(())
        });
        scan.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The parts of a record: whose each is, when it is of one device, and a digest of it.
fn parts(row: &RecordRef<'_>, gate: &Gate, mut part: impl FnMut(Option<&str>, u64)) {
    match row.kind {
        RecordKind::Events => {
            let Ok(batch) = block::Decoder::new().decode(row.payload) else { return };
            for run in batch.runs() {
                for at in run.rows() {
                    let cells: Vec<String> =
                        batch.columns.iter().map(|column| format!("{:?}", column.value(at))).collect();
                    let told = (batch.device(run), batch.times[at].0, batch.seq(at), cells);
                    part(Some(batch.device(run)), digest(&told));
                }
            }
        }
        RecordKind::Panes => list(row, |pane: &Pane| {
            let device = gate.by_device.contains(&format!("window {}", pane.window)).then_some(&*pane.key);
            part(device, digest(&record::encode(pane)));
        }),
        RecordKind::Alerts => list(row, |alert: &Alert| {
            let device = gate.by_device.contains(&format!("rule {}", alert.rule)).then_some(&*alert.key);
            part(device, digest(&record::encode(alert)));
        }),
        RecordKind::Late => list(row, |late: &LateEvent| part(Some(&late.device), digest(&record::encode(late)))),
        RecordKind::Homes => list(row, |home: &Home| part(Some(&home.device), digest(&record::encode(home)))),
        RecordKind::Twin => list(row, |twin: &(String, Reported)| part(Some(&twin.0), digest(&record::encode(twin)))),
        RecordKind::LeftOut => list(row, |left: &LeftOut| part(Some(&left.device), digest(&record::encode(left)))),
        RecordKind::DropRange => part(None, digest(&row.payload)),
    }
}

fn list<T: serde::de::DeserializeOwned>(row: &RecordRef<'_>, f: impl FnMut(&T)) {
    record::decode::<Vec<T>>(row.payload).unwrap_or_default().iter().for_each(f);
}

fn digest(told: &impl Hash) -> u64 {
    FixedState::with_seed(5).hash_one(told)
}
