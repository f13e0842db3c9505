//! The last count: whether the cloud has what the sites have. The ledgers are closed, as many readings of each machine are there as were
//! acknowledged, and the panes are the same.

use std::collections::BTreeMap;

use anyhow::Context;
use millpond_core::time::{Span, Timestamp};
use millpond_gateway::client::http::HttpClient;
use serde_json::Value;

use super::{
    Shared, cloud,
    config::WINDOW,
    ledger::{Heads, Ledger},
    mesh::{NAMES, SITES, nodes_of},
    status::Seen,
};

/// Panes that are asked for at once.
const PAGE: Span = Span::from_secs(60);
/// As many as a node answers with.
const PANES_MAX: u32 = 10_000;
/// Machines or panes that are named when they are not the same.
const NAMED: usize = 3;

/// By key, start and end.
type Panes = BTreeMap<(String, i64, i64), Value>;

/// Whom is asked, and about what.
#[derive(Debug)]
pub struct Question<'a> {
    /// A client of each node.
    pub nodes: &'a [HttpClient],
    pub cloud: &'a HttpClient,
    /// By site: readings of each machine from `since` on that were there when the demo began.
    pub before: &'a [Vec<u64>],
    pub since: Timestamp,
    /// When the first and the last reading was measured.
    pub measured: (Timestamp, Timestamp),
}

/// What the cloud has, beside what it should have.
#[derive(Debug, Default)]
pub struct Found {
    pub ledgers: Vec<(Ledger, Heads)>,
    /// Readings that were acknowledged, and as many of them as the cloud has; nothing while the ledgers are open.
    pub readings: Option<Counted>,
    /// Panes by site; nothing while the ledgers are open.
    pub panes: Vec<Counted>,
}

/// Two counts that should be the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub at_sites: u64,
    pub in_cloud: u64,
    /// Where they are not.
    pub differ: Vec<String>,
}

impl Found {
    pub fn agrees(&self) -> bool {
        self.problems().is_empty()
    }

    fn is_closed(&self) -> bool {
        self.ledgers.iter().all(|(ledger, heads)| ledger.is_closed(heads))
    }

    /// What is missing, in words.
    pub fn problems(&self) -> Vec<String> {
        let open = SITES.iter().zip(&self.ledgers).filter_map(|(site, (ledger, heads))| {
            ledger.problem(heads).map(|problem| format!("the ledger of {site} is open: {problem}"))
        });
        let mut problems: Vec<String> = open.collect();
        let counted = self.readings.iter().chain(&self.panes);
        problems.extend(counted.flat_map(|counted| named(&counted.differ)));
        if self.ledgers.len() < SITES.len() || (problems.is_empty() && self.panes.len() < SITES.len()) {
            problems.push("the cloud was not asked to the end".to_owned());
        }
        problems
    }
}

/// The first few, and how many more there are.
fn named(differ: &[String]) -> Vec<String> {
    let mut named: Vec<String> = differ.iter().take(NAMED).cloned().collect();
    if differ.len() > NAMED {
        named.push(format!("and {} more", differ.len() - NAMED));
    }
    named
}

/// Looks once. Of a ledger that is open nothing more is asked, unless it is the last look.
///
/// # Errors
/// When somebody does not answer.
pub async fn look(question: &Question<'_>, status: &Shared, last: bool) -> anyhow::Result<Found> {
    let mut found = Found::default();
    for (site, name) in SITES.iter().enumerate() {
        for node in nodes_of(site) {
            let journal = question.nodes[node].get("/v1/journal").await;
            let journal = journal.with_context(|| format!("{} does not tell of its journal", NAMES[node]))?;
            let seen = Seen::of(&[], &journal, &Value::Null);
            if let Some(head) = seen.head {
                status.lock().cloud.sites[site].heard(head);
            }
        }
        let ledger = cloud::ledger(question.cloud, name).await?;
        found.ledgers.push((ledger, status.lock().cloud.sites[site].heads.clone()));
    }
    if !found.is_closed() && !last {
        return Ok(found);
    }
    found.readings = Some(readings(question, status).await?);
    for site in 0..SITES.len() {
        found.panes.push(panes(question, site).await?);
    }
    Ok(found)
}

async fn readings(question: &Question<'_>, status: &Shared) -> anyhow::Result<Counted> {
    let mut counted = Counted::default();
    for site in 0..SITES.len() {
        let machines = status.lock().machines_of(site);
        for (at, machine) in machines.iter().enumerate() {
            let before = question.before[site].get(at).copied().unwrap_or_default();
            let there = cloud::count(question.cloud, machine, question.since).await?.saturating_sub(before);
            counted.at_sites += machine.acked;
            counted.in_cloud += there;
            if there != machine.acked {
                let name = &machine.name;
                counted.differ.push(format!("{name}: {} readings acknowledged, {there} in the cloud", machine.acked));
            }
        }
    }
    Ok(counted)
}

/// The panes of a site there and in the cloud, page by page.
async fn panes(question: &Question<'_>, site: usize) -> anyhow::Result<Counted> {
    let mut counted = Counted::default();
    let page = PAGE.as_millis();
    let (first, last) = (question.measured.0.as_millis() / page, question.measured.1.as_millis() / page);
    for number in first..=last {
        let range = format!("start={}&end={}&limit={PANES_MAX}", number * page, (number + 1) * page);
        let path = format!("/v1/windows/{WINDOW}?{range}");
        let there = by_name(&question.nodes[nodes_of(site).start].get(&path).await?);
        if there.is_empty() && counted.at_sites == 0 {
            // The cloud learns of a window with its first pane.
            continue;
        }
        let here = by_name(&question.cloud.get(&format!("{path}&site={}", SITES[site])).await?);
        compare(SITES[site], &there, &here, &mut counted);
    }
    Ok(counted)
}

/// Panes that are still open may differ.
fn by_name(answer: &Value) -> Panes {
    let closed = answer["panes"].as_array().into_iter().flatten().filter(|pane| pane["open"] != true);
    let named = |pane: &Value| {
        let name = (pane["key"].as_str()?.to_owned(), pane["start"].as_i64()?, pane["end"].as_i64()?);
        Some((name, pane.clone()))
    };
    closed.filter_map(named).collect()
}

fn compare(site: &str, there: &Panes, here: &Panes, counted: &mut Counted) {
    counted.at_sites += there.len() as u64;
    for (name, pane) in there {
        let (key, start, _) = name;
        match here.get(name) {
            Some(same) if same == pane => counted.in_cloud += 1,
            Some(other) => {
                counted.differ.push(format!("the pane of {key} at {start}: {site} says {pane}, the cloud {other}"))
            }
            None => counted.differ.push(format!("the pane of {key} at {start} is not in the cloud")),
        }
    }
    let more = here.keys().filter(|name| !there.contains_key(*name));
    counted.differ.extend(more.map(|(key, start, _)| format!("the pane of {key} at {start} is in the cloud alone")));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn panes(counts: &[(&str, u64)]) -> Panes {
        let pane =
            |(key, count): &(&str, u64)| json!({ "key": key, "start": 0, "end": 5000, "open": false, "count": count });
        by_name(&json!({ "panes": counts.iter().map(pane).collect::<Vec<_>>() }))
    }

    fn closed() -> Found {
        let rows =
            json!({ "rows": [{ "name": "hall", "origin": "aa", "incarnation": 0, "records": 1, "delivered": 1 }] });
        let ledger = (Ledger::of_json(&rows), Heads::new());
        let same = Counted { at_sites: 1, in_cloud: 1, differ: Vec::new() };
        Found { ledgers: vec![ledger; 2], readings: Some(same.clone()), panes: vec![same; 2] }
    }

    #[test]
    fn panes_that_are_missing_other_or_too_many_are_named() {
        let mut counted = Counted::default();
        compare("mill", &panes(&[("a", 1), ("b", 2), ("c", 3)]), &panes(&[("a", 1), ("b", 9), ("d", 4)]), &mut counted);
        assert_eq!((counted.at_sites, counted.in_cloud, counted.differ.len()), (3, 1, 3));
        assert_eq!(counted.differ[1], "the pane of c at 0 is not in the cloud");
        assert_eq!(counted.differ[2], "the pane of d at 0 is in the cloud alone");
    }

    #[test]
    fn it_agrees_when_everything_was_asked_and_is_the_same() {
        assert!(closed().agrees());
        assert_eq!(Found::default().problems(), ["the cloud was not asked to the end"]);
        assert!(!Found { panes: Vec::new(), ..closed() }.agrees());
        let differ = (0..5).map(|n| format!("m-{n}")).collect();
        let readings = Some(Counted { at_sites: 5, in_cloud: 0, differ });
        assert_eq!(Found { readings, ..closed() }.problems(), ["m-0", "m-1", "m-2", "and 2 more"]);
    }

    #[test]
    fn an_open_ledger_is_told() {
        let mut found = closed();
        found.ledgers[1].1.insert(("aa".to_owned(), 0), 4);
        assert_eq!(found.problems(), ["the ledger of bakery is open: 3 of which the cloud has not heard"]);
    }
}
