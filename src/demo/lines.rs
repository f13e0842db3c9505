//! The view for pipes and logs: lines on stdout, what happened at once, figures every two seconds.

use std::fmt::Write as _;

use millpond_core::time::Span;
use millpond_env::Mono;

use super::{
    fleet,
    site::{NAMES, NODES},
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
    pub fn new(status: &Status) -> Lines {
        Lines { next: status.begun.after(EVERY), panes_left_out: 0, panes_shown: 0 }
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
        if now >= self.next {
            self.next = now.after(EVERY);
            if self.panes_left_out > 0 {
                line(
                    &mut text,
                    now.since(status.begun),
                    &format!("and {} more results of windows", self.panes_left_out),
                );
            }
            (self.panes_left_out, self.panes_shown) = (0, 0);
            line(&mut text, now.since(status.begun), &figures(status));
        }
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

/// Whether everything that was acknowledged is there.
pub fn audit(status: &Status) -> String {
    match status.audit {
        None => "not counted yet".to_owned(),
        Some(Audit { acked, missing: 0, .. }) => format!("all of {acked} acknowledged were found"),
        Some(Audit { acked, missing, .. }) => format!("{missing} OF {acked} ACKNOWLEDGED ARE MISSING"),
    }
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
    let dead_letters: u64 = status.nodes.iter().map(|node| node.seen.dead_letters).sum();
    format!(
        "\nran {:.1} s with {} devices on {NODES} nodes\n{kills}published {}, acknowledged {}, stored {}: {verdict}\nresults of {} {}, alerts {} fired, {} resolved, {dead_letters} dead letters\n",
        now.since(status.begun).as_secs_f64(),
        status.machines.len(),
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
