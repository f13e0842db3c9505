//! `millpond uplinks`.

use std::process::ExitCode;

use crate::{
    commands::{
        remote::Remote,
        table::{self, Column},
    },
    exit,
};

/// Show how far the node's deliveries to the cloud have come
///
/// LEFT counts records of this node that the cloud has not confirmed: results (alerts, state, panes) and raw events. ETA S is how long they take
/// at the present rate, in seconds. WHY says what the last failure was, while the cloud cannot be reached.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond uplinks
  millpond uplinks --json                           with the journals of the other nodes")]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let answer = args.remote.get("/v1/uplinks").await?;
    let items = table::items(&answer);
    let columns = [
        Column("CLOUD", "cloud"),
        Column("CONNECTED", "connected"),
        Column("LEFT", "left"),
        Column("ETA S", "eta_s"),
        Column("HEAD", "order.head"),
        Column("STATE", "order.state"),
        Column("WHY", "why"),
    ];
    let is_table = table::answer(args.remote.json, &columns, items)?;
    if is_table && items.is_empty() {
        eprintln!("nothing is delivered anywhere: `millpond site trust CLOUD.crt --uplink HOST:PORT` begins it");
    }
    Ok(exit::OK)
}
