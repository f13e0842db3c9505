//! `millpond tap`.

use millpond_gateway::client::http::query_string;
use std::process::ExitCode;

use crate::{
    commands::{out, remote::Remote},
    exit,
};

/// Watch live what the node has stored, filtered
///
/// One JSON document per line, as soon as it is on disk. A tap that cannot keep up misses lines, and is told how many; it never holds the node up.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond tap
  millpond tap --device press-1 --metric temperature
  millpond tap --where 'temperature > 80 && state == \"running\"'
  millpond tap --count 10 | jq .")]
pub struct Args {
    /// Only this device
    #[arg(long)]
    device: Option<String>,
    /// Only events with this metric, and of those only this metric
    #[arg(long)]
    metric: Option<String>,
    /// Only events for which this condition in CEL holds
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// Stop after so many lines
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    remote: Remote,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let query = query_string(&[("device", args.device), ("metric", args.metric), ("where", args.condition)]);
    let client = args.remote.client()?;
    let mut lines = client.lines(&format!("/v1/tap{query}")).await.map_err(|error| args.remote.told(error))?;
    let mut seen = 0;
    while args.count.is_none_or(|count| seen < count) {
        match lines.next().await.map_err(|error| args.remote.told(error))? {
            // Empty lines keep the connection alive.
            Some(line) if line.is_empty() => {}
            Some(line) => {
                out(line + "\n")?;
                seen += 1;
            }
            None => {
                eprintln!("the node ended the stream");
                break;
            }
        }
    }
    Ok(exit::OK)
}
