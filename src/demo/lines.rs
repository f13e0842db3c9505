//! The view for pipes and logs: lines on stdout, what happened at once, figures every two seconds.

use std::fmt::Write as _;

use millpond_core::time::Span;
use millpond_env::Mono;

use super::{fleet, status::Status};
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

    /// Prints what is new; never ends the demo.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub fn print(&mut self, status: &mut Status, now: Mono) -> anyhow::Result<bool> {
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
        out(text)?;
        Ok(false)
    }
}

fn line(text: &mut String, at: Span, what: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{:6.1}s  {what}", at.as_secs_f64());
}

fn figures(status: &Status) -> String {
    format!(
        "{:.0} events/s  acked {}  ack p50 {:.1} ms p99 {:.1} ms  {} devices  panes {}  alerts {} fired {} resolved  journal {}  {}",
        status.recent.events_per_s,
        status.acked,
        status.recent.ack_ms_p50,
        status.recent.ack_ms_p99,
        status.devices,
        status.panes_seen,
        status.alerts_fired,
        status.alerts_resolved,
        size(status.journal.file_bytes),
        status.health,
    )
}

/// The last words, whose numbers must agree.
pub fn summary(status: &Status, stored: u64, now: Mono) -> String {
    let agree = status.published == status.acked && status.acked == stored;
    let verdict = if agree { "all three agree" } else { "THEY DO NOT AGREE" };
    let restarts = if status.restarts > 0 {
        format!(", the node was started again {} times", status.restarts)
    } else {
        String::new()
    };
    format!(
        "\nran {:.1} s with {} devices{restarts}\npublished {}, acknowledged {}, stored {}: {verdict}\nresults of {} {}, alerts {} fired, {} resolved, {} dead letters\n",
        now.since(status.begun).as_secs_f64(),
        status.devices,
        status.published,
        status.acked,
        stored,
        super::config::WINDOW,
        status.panes_seen,
        status.alerts_fired,
        status.alerts_resolved,
        status.journal.dead_letters,
    )
}

pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
