//! The panes of a site's windows are the same whether its nodes are asked or the cloud, each from what is on its disk.
//!
//! Of windows around the loss of a disk nothing is said: the cloud may know more of them than the site. A node that has lost its disk is not
//! asked: it does not fetch what it wrote before.

use millpond_actors::site_panes;

use super::Delivered;
use crate::{
    checks::{
        site::{Member, Name, Site, describe, is_settled, told_by, uncertain},
        tally::{Findings, Tally},
    },
    scenario::Fault,
};

/// Returns how many panes were compared.
pub fn check(delivered: &Delivered<'_>, said: &mut Findings) -> u64 {
    let site = &delivered.site;
    let Some(member) = asked(delivered) else { return 0 };
    let journals: Vec<_> = delivered.copies.iter().map(|(life, copy)| (&copy.reader, *life)).collect();
    let (mut different, mut unknown, mut compared) = (Tally::default(), Tally::default(), 0);
    let uncertain = uncertain(site);
    let is_known = |(_, start, end): &Name| !uncertain.iter().any(|(from, to)| *start <= to.0 && from.0 <= *end);
    for spec in &member.node.config.windows {
        let at_edge = told_by(member, spec);
        let in_cloud = match site_panes::of_site(spec, &journals) {
            Ok(panes) => panes,
            Err(error) => {
                said.say(format!("the panes of {} cannot be read: {error}", spec.name));
                continue;
            }
        };
        let in_cloud: std::collections::BTreeMap<Name, _> =
            in_cloud.into_iter().map(|pane| ((pane.key.clone(), pane.start.0, pane.end.0), pane)).collect();
        for (name, pane) in at_edge.iter().filter(|(name, _)| is_known(name)) {
            compared += 1;
            match in_cloud.get(name) {
                Some(known) if known == pane => {}
                Some(known) => different.add(|| {
                    let (edge, cloud) = (pane.revision, known.revision);
                    format!("{}: revision {edge} at {}, {cloud} in the cloud", describe(spec, name), member.node.name)
                }),
                None => unknown.add(|| format!("{} is not known in the cloud", describe(spec, name))),
            }
        }
        for name in in_cloud.keys().filter(|name| is_known(name) && !at_edge.contains_key(*name)) {
            unknown.add(|| format!("{} is not known to {}", describe(spec, name), member.node.name));
        }
    }
    said.tell(&different, &format!("panes of {} are told differently by the cloud", delivered.name));
    said.tell(&unknown, &format!("panes of {} are told by one of both only", delivered.name));
    compared
}

/// A node of the site that has caught up.
pub fn asked<'d, 'a>(delivered: &'d Delivered<'a>) -> Option<&'d Member<'a>> {
    let site = &delivered.site;
    site.members.iter().find(|member| is_settled(site, member) && !has_lost_disk(site, member))
}

fn has_lost_disk(site: &Site<'_>, member: &Member<'_>) -> bool {
    let is_wipe = |fault: &Fault| matches!(fault, Fault::Wipe { node, .. } if *node == member.node.name);
    site.evidence.injections.iter().any(|injection| is_wipe(&injection.fault))
}
