//! What a run has shown, for a person.

use std::fmt::Write as _;

use millpond_core::time::Span;
use millpond_sim::{
    promise::Promise,
    report::{NodeReport, Report},
};

use super::words::{bytes, number, plural, rounded, time};

/// Several lines; the last of `sim run` comes after them.
pub fn summary(report: &Report, cpu: Option<Span>) -> String {
    let mut text = format!("{}: {}\n", report.scenario, report.about);
    let _ = writeln!(text, "{}", length(report, cpu));
    let counts = &report.counts;
    let rows = [
        ("measured", counts.measured),
        ("acknowledged", counts.acknowledged),
        ("stored", counts.stored),
        ("dead letters", counts.dead_letters),
        ("given up for space", counts.dropped),
        ("panes", counts.panes),
        ("panes compared", counts.panes_compared),
        ("late", counts.late),
        ("alerts", counts.alerts),
        ("notifications", counts.notifications),
        ("changes", counts.changes_acknowledged),
        ("refused", counts.refusals),
        ("reconnects", counts.reconnects),
    ];
    let rows: Vec<(&str, String)> = rows.iter().map(|(name, count)| (*name, number(*count))).collect();
    let half = rows.len().div_ceil(2);
    let _ = writeln!(text);
    for at in 0..half {
        let cell = |row: Option<&(&str, String)>| row.map_or(String::new(), |(name, n)| format!("{name:<19}{n:>12}"));
        let line = format!("  {}      {}", cell(rows.get(at)), cell(rows.get(at + half)));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let faults: Vec<String> = report.faults.iter().map(|(name, count)| format!("{name} {}", number(*count))).collect();
    let faults = if faults.is_empty() { "none".to_owned() } else { faults.join(", ") };
    let _ = writeln!(text, "\n  faults: {faults}");
    if counts.of_other_sites > 0 {
        let _ = writeln!(text, "  of other sites: {} rows, panes and alerts", number(counts.of_other_sites));
    }
    if counts.in_cloud > 0 {
        let parts = [
            ("came beside older ones", counts.live_beside_backlog),
            ("archived", counts.archived),
            ("failures of its store", counts.store_failures),
            ("times given up before they came", counts.undelivered),
        ];
        let parts = parts.iter().filter(|(_, count)| *count > 0).map(|(what, n)| format!("; {} {what}", number(*n)));
        let _ = writeln!(text, "  in the cloud: {} records{}", number(counts.in_cloud), parts.collect::<String>());
    }
    for node in &report.nodes {
        text.push_str(&of_node(node));
    }
    let _ = writeln!(text);
    for promise in Promise::ALL {
        let (mark, note) = match report.holds(promise) {
            Some(true) => ("✓", ""),
            Some(false) => ("✗", ""),
            None => ("–", " (not checked)"),
        };
        let _ = writeln!(text, "  {mark} {}{note}", promise.name());
    }
    text.push_str(&broken(report));
    text
}

fn length(report: &Report, cpu: Option<Span>) -> String {
    let mut text = format!("  {} simulated", time(report.simulated_ns));
    if let Some(cpu) = cpu.filter(|cpu| cpu.0 > 0) {
        let times = report.simulated_ns as f64 / cpu.0 as f64;
        let _ = write!(text, " in {} of CPU time: {} times faster than life", time(cpu.0 as u64), rounded(times));
    }
    text
}

fn of_node(node: &NodeReport) -> String {
    let disk = &node.disk;
    let mut text = format!(
        "  node {}: {}, {}, {} in the middle of a commit; disk at most {} of {}",
        node.name,
        plural(u64::from(node.boots), "start"),
        match disk.power_losses {
            1 => "1 power loss".to_owned(),
            many => format!("{} power losses", number(many)),
        },
        number(disk.power_losses_mid_commit),
        bytes(disk.peak_used),
        bytes(node.disk_bytes),
    );
    if let Some(hours) = node.full_after_hours {
        let _ = write!(text, "; a disk of {} lasts {} hours at this rate", bytes(node.disk_bytes), rounded(hours));
    }
    text.push('\n');
    for (why, times) in &node.failed_starts {
        let _ = writeln!(text, "    ended by itself {}: {why}", plural(*times, "time"));
    }
    text
}

/// Each broken promise with its detail; nothing when all were kept.
pub fn broken(report: &Report) -> String {
    let mut text = String::new();
    for broken in &report.broken {
        let what = broken.promise.map_or("the run failed", Promise::name);
        let node = if broken.node.is_empty() { String::new() } else { format!(" ({})", broken.node) };
        let _ = writeln!(text, "\n  ✗ {what}{node}");
        for line in broken.detail.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}
