//! Reports as one page that needs nothing else: no scripts, no fonts, no network.

mod chart;

use std::fmt::Write as _;

use millpond_sim::{
    promise::Promise,
    report::{NodeReport, Report},
};

use super::words::{bytes, number, rounded, time};
use chart::Chart;

const STYLE: &str = include_str!("html/style.css");

pub fn page(reports: &[Report]) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.push_str("<meta name=\"color-scheme\" content=\"light dark\">\n<title>Millpond: rehearsals</title>\n");
    let _ = writeln!(page, "<style>\n{STYLE}</style>\n</head>\n<body>\n<header><h1>Rehearsals</h1>");
    let kept = reports.iter().filter(|report| report.kept()).count();
    let _ = writeln!(page, "<p>{kept} of {} kept all promises</p></header>", reports.len());
    if reports.len() > 1 {
        page.push_str(&overview(reports));
    }
    for (at, report) in reports.iter().enumerate() {
        page.push_str(&section(at, report));
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn overview(reports: &[Report]) -> String {
    let mut text =
        String::from("<table class=\"overview\"><thead><tr><th>Scenario</th><th>Seed</th><th>Simulated</th>");
    text.push_str("<th>Stored</th><th>Faults</th><th>Promises</th></tr></thead><tbody>\n");
    for (at, report) in reports.iter().enumerate() {
        let _ = writeln!(
            text,
            "<tr><td><a href=\"#run-{at}\">{}</a></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&report.scenario),
            report.seed,
            time(report.simulated_ns),
            number(report.counts.stored),
            number(report.faults.values().sum()),
            verdict(report),
        );
    }
    text.push_str("</tbody></table>\n");
    text
}

fn verdict(report: &Report) -> &'static str {
    if report.kept() { "<span class=\"badge kept\">kept</span>" } else { "<span class=\"badge broken\">broken</span>" }
}

fn section(at: usize, report: &Report) -> String {
    let mut text = format!("<section id=\"run-{at}\">\n<h2>{} {}</h2>\n", escape(&report.scenario), verdict(report));
    let _ = writeln!(text, "<p class=\"about\">{}</p>", escape(&report.about));
    let _ = writeln!(
        text,
        "<p class=\"facts\">seed <code>{}</code> · hash <code>{}</code> · {} simulated · {} events</p>",
        report.seed,
        escape(&report.hash),
        time(report.simulated_ns),
        number(report.noted),
    );
    text.push_str(&promises(report));
    text.push_str(&counts(report));
    for node in &report.nodes {
        text.push_str(&of_node(node));
    }
    text.push_str(&faults(report));
    text.push_str("</section>\n");
    text
}

fn promises(report: &Report) -> String {
    let mut text = String::from("<ul class=\"promises\">\n");
    for promise in Promise::ALL {
        let (class, mark) = match report.holds(promise) {
            Some(true) => ("kept", "✓"),
            Some(false) => ("broken", "✗"),
            None => ("unchecked", "–"),
        };
        let _ = writeln!(text, "<li class=\"{class}\"><b>{mark}</b> {}</li>", promise.name().replace('_', " "));
    }
    text.push_str("</ul>\n");
    for broken in &report.broken {
        let what = broken.promise.map_or("the run failed", Promise::name).replace('_', " ");
        let node = if broken.node.is_empty() { String::new() } else { format!(" · {}", escape(&broken.node)) };
        let _ = writeln!(text, "<div class=\"detail\"><b>{what}</b>{node}<pre>{}</pre></div>", escape(&broken.detail));
    }
    text
}

fn counts(report: &Report) -> String {
    let counts = &report.counts;
    let tiles = [
        ("measured", counts.measured),
        ("acknowledged", counts.acknowledged),
        ("stored", counts.stored),
        ("dead letters", counts.dead_letters),
        ("given up for space", counts.dropped),
        ("panes", counts.panes),
        ("late", counts.late),
        ("alerts", counts.alerts),
        ("changes", counts.changes_acknowledged),
        ("refused", counts.refusals),
        ("reconnects", counts.reconnects),
    ];
    let mut text = String::from("<dl class=\"tiles\">\n");
    for (name, count) in tiles {
        let _ = writeln!(text, "<div><dt>{name}</dt><dd>{}</dd></div>", number(count));
    }
    text.push_str("</dl>\n");
    text
}

fn of_node(node: &NodeReport) -> String {
    let disk = &node.disk;
    let mut facts = vec![
        format!("{} starts", number(node.boots.into())),
        format!(
            "{} power losses, {} of them in a commit",
            number(disk.power_losses),
            number(disk.power_losses_mid_commit)
        ),
        format!("disk at most {} of {}", bytes(disk.peak_used), bytes(node.disk_bytes)),
        format!("{} written in {} syncs", bytes(disk.bytes_written), number(disk.syncs)),
    ];
    if node.commit_seconds_mean > 0.0 {
        facts.push(format!("a commit takes {} ms", rounded(node.commit_seconds_mean * 1e3)));
    }
    if let Some(hours) = node.full_after_hours {
        facts.push(format!("the disk is full after {} hours at this rate", rounded(hours)));
    }
    let mut text = format!("<h3>Node {}</h3>\n<p class=\"facts\">{}</p>\n", escape(&node.name), facts.join(" · "));
    if node.curve.len() > 1 {
        text.push_str("<div class=\"charts\">\n");
        text.push_str(&Chart { title: "disk used", class: "disk", value: |point| point.disk_used }.draw(&node.curve));
        text.push_str(&Chart { title: "in flight", class: "flight", value: |point| point.in_flight }.draw(&node.curve));
        text.push_str("</div>\n<p class=\"legend\"><span></span> the program was not up</p>\n");
    }
    if !node.failed_starts.is_empty() {
        text.push_str("<ul class=\"ended\">");
        for (why, times) in &node.failed_starts {
            let _ = write!(text, "<li>ended by itself {}×: {}</li>", number(*times), escape(why));
        }
        text.push_str("</ul>\n");
    }
    text
}

fn faults(report: &Report) -> String {
    if report.faults.is_empty() {
        return "<p class=\"facts\">no faults</p>\n".to_owned();
    }
    let most = report.faults.values().copied().max().unwrap_or(1).max(1);
    let mut text = String::from("<h3>Faults</h3>\n<table class=\"faults\"><tbody>\n");
    for (name, count) in &report.faults {
        let _ = writeln!(
            text,
            "<tr><th>{}</th><td>{}</td><td class=\"bar\"><i style=\"width:{:.1}%\"></i></td></tr>",
            escape(&name.replace('_', " ")),
            number(*count),
            *count as f64 * 100.0 / most as f64,
        );
    }
    text.push_str("</tbody></table>\n");
    text
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_scenario_says_cannot_become_markup() {
        assert_eq!(escape("<b a=\"x\">&"), "&lt;b a=&quot;x&quot;&gt;&amp;");
    }
}
