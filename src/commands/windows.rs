//! `millpond windows`.

use std::process::ExitCode;

use millpond_gateway::client::http::{escape, query_string};
use serde_json::Value;

use crate::{
    commands::{
        out,
        remote::Remote,
        table::{self, Column},
    },
    exit,
};

/// Show the results of a window, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond windows press-minute
  millpond windows press-minute --key press-1 --limit 10
  millpond windows press-minute --late")]
pub struct Args {
    /// Name of the window
    window: String,
    /// Only results of this key: a device, a device type, or the node
    #[arg(long)]
    key: Option<String>,
    /// First moment of results that are shown (RFC 3339 or epoch milliseconds)
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// First moment of results that are not shown any more
    #[arg(long, value_name = "TIME")]
    end: Option<String>,
    /// Results at most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Show the events that came too late instead
    #[arg(long, conflicts_with_all = ["key", "start", "end"])]
    late: bool,
    /// Of another site, from which records are fetched (`millpond site trusts`)
    #[arg(long, value_name = "NAME", conflicts_with = "late")]
    site: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let limit = args.limit.map(|limit| limit.to_string());
    let query = query_string(&[
        ("key", args.key),
        ("start", args.start),
        ("end", args.end),
        ("limit", limit),
        ("site", args.site),
    ]);
    let late = if args.late { "/late" } else { "" };
    let answer = args.remote.get(&format!("/v1/windows/{}{late}{query}", escape(&args.window))).await?;
    let items = table::items(&answer);
    if args.remote.json || args.late {
        table::print_json(items)?;
        return Ok(exit::OK);
    }
    if items.is_empty() {
        eprintln!("none");
        return Ok(exit::OK);
    }
    let head = [
        Column("KEY", "key"),
        Column("START", "start@"),
        Column("END", "end@"),
        Column("REVISION", "revision"),
        Column("OPEN", "open"),
    ];
    let mut text = table::render(&head, items);
    // Metrics differ from window to window: they follow their pane's line.
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (line, item) in lines.iter_mut().skip(1).zip(items) {
        line.push_str(&metrics(item));
    }
    text = lines.join("\n") + "\n";
    out(text)?;
    Ok(exit::OK)
}

fn metrics(pane: &Value) -> String {
    let mut text = String::new();
    for (metric, values) in pane["metrics"].as_object().into_iter().flatten() {
        let values: Vec<String> =
            values.as_object().into_iter().flatten().map(|(name, value)| format!("{name}={value}")).collect();
        text.push_str(&format!("  {metric}: {}", values.join(" ")));
    }
    text
}
