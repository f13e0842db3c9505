//! The view for pipes and logs: lines on stdout, what happened at once, figures every two seconds.

use std::fmt::Write as _;

use millpond_core::time::Span;
use millpond_env::Mono;

use super::{
    cloud::SiteStatus,
    fleet,
    mesh::{NAMES, NODES, SITES},
    reconcile::{Counted, Found},
    status::{Audit, NodeStatus, Status},
};
use crate::commands::out;

const EVERY: Span = Span::from_secs(2);
/// Results of windows that are printed with each line of figures, besides those of the machine that breaks; the others are counted.
const PANES_SHOWN: usize = 2;

#[derive(Debug)]
pub struct Lines {
    next: Mono,
    panes_left_out: u64,
    panes_shown: usize,
}

impl Lines {
    pub fn new(now: Mono) -> Lines {
        Lines { next: now.after(EVERY), panes_left_out: 0, panes_shown: 0 }
    }

    /// Prints what is new.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub fn print(&mut self, status: &mut Status, now: Mono) -> anyhow::Result<()> {
        let mut text = String::new();
        for (at, what) in status.said.drain(..) {
            if what.starts_with("window ") && !what.contains(fleet::BREAKS) {
                self.panes_shown += 1;
                if self.panes_shown > PANES_SHOWN {
                    self.panes_left_out += 1;
                    continue;
                }
            }
            line(&mut text, at, &what);
        }
        out(text)?;
        if now >= self.next { self.print_figures(status, now) } else { Ok(()) }
    }

    /// Prints how everything stands.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub fn print_figures(&mut self, status: &Status, now: Mono) -> anyhow::Result<()> {
        self.next = now.after(EVERY);
        let (mut text, at) = (String::new(), now.since(status.begun));
        if self.panes_left_out > 0 {
            line(&mut text, at, &format!("and {} more results of windows", self.panes_left_out));
        }
        (self.panes_left_out, self.panes_shown) = (0, 0);
        line(&mut text, at, &figures(status));
        line(&mut text, at, &cloud(status));
        out(text)
    }
}

fn line(text: &mut String, at: Span, what: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{:6.1}s  {what}", at.as_secs_f64());
}

fn figures(status: &Status) -> String {
    format!(
        "{:.0} events/s  acked {}  ack p50 {:.1} ms p99 {:.1} ms  {}  panes {}  alerts {} fired {} resolved  {}",
        status.recent.events_per_s,
        status.acked,
        status.recent.ack_ms_p50,
        status.recent.ack_ms_p99,
        nodes(status),
        status.panes_seen,
        status.alerts_fired,
        status.alerts_resolved,
        audit(status),
    )
}

fn nodes(status: &Status) -> String {
    let node = |(name, node): (&&str, &NodeStatus)| match (node.up_since, node.seen.members) {
        (None, _) => format!("{name} down"),
        (Some(_), 0) => format!("{name} up"),
        (Some(_), members) => format!("{name} sees {members}, misses {}", node.seen.missing),
    };
    NAMES.iter().zip(&status.nodes).map(node).collect::<Vec<_>>().join("; ")
}

/// What the cloud has.
fn cloud(status: &Status) -> String {
    let site = |(name, site): (&&str, &SiteStatus)| {
        let mut text = format!("{name}{}", if site.is_cut { " (line cut)" } else { "" });
        // Writing to a string cannot fail.
        let _ = write!(text, " delivered {}, at site {}", site.ledger.delivered(), site.at_site());
        if let Some(eta) = site.eta() {
            let _ = write!(text, " (ready in {})", age(eta));
        }
        let _ = write!(text, ", missing {}", site.ledger.missing());
        let _ = write!(text, ", connected {} of {}", site.ledger.connected(), site.ledger.journals());
        if site.is_closed() {
            text.push_str(", closed");
        }
        if let Some(newest) = site.age {
            let _ = write!(text, ", newest value {} old", age(newest));
        }
        text
    };
    let sites: Vec<String> = SITES.iter().zip(&status.cloud.sites).map(site).collect();
    format!("cloud: {}; {} events in the archive", sites.join("; "), status.cloud.archived)
}

/// A length of time with one digit behind the point.
pub fn age(span: Span) -> String {
    format!("{:.1} s", span.as_secs_f64())
}

/// Whether everything that was acknowledged is there.
pub fn audit(status: &Status) -> String {
    match status.audit() {
        None => "not counted yet".to_owned(),
        Some(Audit { acked, missing: 0, .. }) => format!("all of {acked} acknowledged were found"),
        Some(Audit { acked, missing, .. }) => format!("{missing} OF {acked} ACKNOWLEDGED ARE MISSING"),
    }
}

/// The last words on the cloud, whose numbers must agree as well.
pub fn summary_of_cloud(status: &Status, found: &Found) -> String {
    let mut text = String::new();
    for (site, (ledger, heads)) in SITES.iter().zip(&found.ledgers) {
        let state = if ledger.is_closed(heads) { "closed" } else { "OPEN" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "the cloud's ledger of {site}: {} records, delivered {}, at site {}, missing {}: {state}",
            ledger.records(heads),
            ledger.delivered(),
            ledger.at_site(heads),
            ledger.missing(),
        );
    }
    let verdict = |counted: &Counted| if counted.differ.is_empty() { "the same" } else { "NOT THE SAME" };
    if let Some(readings) = &found.readings {
        let Counted { at_sites, in_cloud, .. } = readings;
        let (many, said) = (status.machines.len(), verdict(readings));
        let _ = writeln!(text, "readings of {many} devices: {at_sites} acknowledged, {in_cloud} in the cloud: {said}");
    }
    for (site, panes) in SITES.iter().zip(&found.panes) {
        let (Counted { at_sites, in_cloud, .. }, said) = (panes, verdict(panes));
        let _ = writeln!(text, "panes of {site}: {at_sites} there, {in_cloud} of them in the cloud: {said}");
    }
    for problem in found.problems() {
        let _ = writeln!(text, "NOT IN ORDER: {problem}");
    }
    text
}

/// The last words, whose numbers must agree.
pub fn summary(status: &Status, stored: u64, now: Mono) -> String {
    let agree = status.published == status.acked && status.acked == stored;
    let verdict = if agree { "all three agree" } else { "THEY DO NOT AGREE" };
    let kills = if status.kills > 0 {
        let Status { kills, restarts, adopted, .. } = status;
        format!(
            "nodes were killed {kills} times and started again {restarts} times; others went on with {adopted} of their windows\n"
        )
    } else {
        String::new()
    };
    let cuts = match status.cuts {
        0 => String::new(),
        cuts => format!("the line of a site to the cloud was cut {cuts} times\n"),
    };
    let dead_letters: u64 = status.nodes.iter().map(|node| node.seen.dead_letters).sum();
    format!(
        "\nran {:.1} s with {} devices on {NODES} nodes of {} sites and a cloud\n{kills}{cuts}published {}, acknowledged {}, stored {}: {verdict}\nresults of {} {}, alerts {} fired, {} resolved, {dead_letters} dead letters\n",
        now.since(status.begun).as_secs_f64(),
        status.machines.len(),
        SITES.len(),
        status.published,
        status.acked,
        stored,
        super::config::WINDOW,
        status.panes_seen,
        status.alerts_fired,
        status.alerts_resolved,
    )
}

pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
