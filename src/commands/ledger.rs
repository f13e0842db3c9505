//! `millpond ledger`.

use std::process::ExitCode;

use crate::{
    commands::{
        remote::Remote,
        table::{self, Column},
    },
    exit,
};

/// Show whose records the node holds, and which it misses
///
/// One line per origin, life and track: `results` (panes, alerts, twins, homes of devices) go to every node of the site, `raw` events to
/// `site.replicas` of them. MISSING counts records that are known to be somewhere and are not held here yet. Nodes of another site, from
/// which records are fetched, follow as SITE/NODE.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond ledger
  millpond ledger --json                            with all ranges")]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let answer = args.remote.get("/v1/site/ledger").await?;
    let items = table::items(&answer);
    if args.remote.json {
        table::print_json(items)?;
        return Ok(exit::OK);
    }
    let columns = [
        Column("NODE", "name"),
        Column("LIFE", "incarnation"),
        Column("TRACK", "track"),
        Column("HELD", "held"),
        Column("HEAD", "head"),
        Column("MISSING", "missing"),
        Column("WANTED", "wanted"),
        Column("HEAD AT", "head_at"),
    ];
    table::print(&columns, items)?;
    eprintln!("own records: up to {}, confirmed by the site up to {}", answer["head"], answer["confirmed"]);
    Ok(exit::OK)
}
