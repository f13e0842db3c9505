//! `millpond devices`.

use millpond_gateway::client::http::{escape, query_string};
use std::process::ExitCode;

use crate::{
    commands::{
        out,
        remote::Remote,
        table::{self, Column},
    },
    exit,
};

/// Show the devices that the node knows, or one of them
///
/// A node of a cloud knows those of its sites: which are at home there, and of which events are archived.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond devices
  millpond devices press-1
  millpond devices --json --limit 1000")]
pub struct Args {
    /// One device, with all that is known of it
    device: Option<String>,
    /// Only devices whose names come after this one
    #[arg(long, value_name = "DEVICE")]
    after: Option<String>,
    /// Devices at most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// At a node of a cloud: only those of this tenant's sites
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(device) = &args.device {
        let answer = args.remote.get(&format!("/v1/devices/{}", escape(device))).await?;
        out(if args.remote.json { format!("{answer}\n") } else { serde_json::to_string_pretty(&answer)? + "\n" })?;
        return Ok(exit::OK);
    }
    let query = query_string(&[
        ("after", args.after),
        ("limit", args.limit.map(|limit| limit.to_string())),
        ("tenant", args.tenant),
    ]);
    let answer = args.remote.get(&format!("/v1/devices{query}")).await?;
    let items = table::items(&answer);
    if args.remote.json {
        table::print_json(items)?;
    } else {
        let columns = [
            Column("DEVICE", "device_id"),
            Column("TYPE", "type"),
            Column("TENANT", "tenant"),
            Column("SITES", "sites"),
            Column("HOME", "home"),
            Column("REGISTERED", "registered"),
            Column("QUARANTINED", "quarantined"),
            Column("LAST SEEN", "last_seen@"),
            Column("LAST EVENT", "last_time@"),
            Column("EVENTS", "accepted"),
            Column("DUPLICATES", "duplicates"),
            Column("REJECTED", "rejected"),
            Column("SKEW MS", "clock_skew_ms"),
        ];
        table::print(&columns, items)?;
    }
    Ok(exit::OK)
}
