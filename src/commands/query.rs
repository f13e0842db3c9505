//! `millpond query`.

use std::process::ExitCode;

use millpond_gateway::client::http::query_string;
use serde_json::Value;

use crate::{
    commands::{out, remote::Remote},
    exit,
};

/// Show what a device measured
///
/// Without --start the last hour of the device's events is shown. Times are RFC 3339 or epoch milliseconds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond query press-1 temperature
  millpond query press-1 temperature --start 2026-11-20T08:00:00Z --end 2026-11-20T09:00:00Z
  millpond query press-1 temperature --aggregate mean --step 5m --json")]
pub struct Args {
    /// Name of the device
    device: String,
    /// Name of the metric
    metric: String,
    /// First moment that is shown
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// First moment that is not shown any more
    #[arg(long, value_name = "TIME")]
    end: Option<String>,
    /// One point per step: count, sum, min, max, mean, first or last
    #[arg(long, requires = "step", value_name = "NAME")]
    aggregate: Option<String>,
    /// Length of a step, such as 30s or 5m
    #[arg(long, requires = "aggregate", value_name = "DURATION")]
    step: Option<String>,
    /// Points at most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Of another site, from which records are fetched (`millpond site trusts`)
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// At a node of a cloud: whose device it is. Default: that of the user's tenant, or of `default`
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let query = query_string(&[
        ("device_id", Some(args.device)),
        ("metric", Some(args.metric)),
        ("start", args.start),
        ("end", args.end),
        ("aggregate", args.aggregate),
        ("step", args.step),
        ("limit", args.limit.map(|limit| limit.to_string())),
        ("site", args.site),
        ("tenant", args.tenant),
    ]);
    let answer = args.remote.get(&format!("/v1/query{query}")).await?;
    if args.remote.json {
        out(format!("{answer}\n"))?;
        return Ok(exit::OK);
    }
    let points = answer["points"].as_array().map_or(&[][..], Vec::as_slice);
    let mut text = String::new();
    for point in points {
        let value = match &point[1] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        text.push_str(&format!("{}  {value}\n", time(&point[0])));
    }
    out(text)?;
    if points.is_empty() {
        eprintln!("no events in this range");
    }
    if answer["truncated"] == true {
        eprintln!("hint: there are more points; raise --limit, or start at the last one");
    }
    Ok(exit::OK)
}

/// Epoch milliseconds as RFC 3339.
fn time(ms: &Value) -> String {
    match ms.as_f64() {
        Some(ms) => millpond_core::time::Timestamp((ms * 1e6) as i64).to_string(),
        None => ms.to_string(),
    }
}
