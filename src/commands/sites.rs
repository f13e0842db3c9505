//! `millpond sites`.

use std::process::ExitCode;

use crate::{
    commands::{
        remote::Remote,
        table::{self, Column},
    },
    exit,
};

/// Show the sites that deliver to the cloud
///
/// RECORDS are those that are known of; DELIVERED of them are in the cloud, AT SITE are still to come, MISSING are neither: something is wrong.
/// HEAD names the definitions from the cloud that the site works with, and STATE says how it stands with those that it is to work with: `millpond rollout`.
/// NODES counts the journals of the site, CONNECTED those that somebody delivers now.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond sites --data cloud-data
  millpond ledger plant-7 --data cloud-data         where each record of a site has gone")]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let answer = args.remote.get("/v1/cloud/sites").await?;
    let items = table::items(&answer);
    let columns = [
        Column("SITE", "site"),
        Column("TENANT", "tenant"),
        Column("REGION", "region"),
        Column("NODES", "nodes"),
        Column("CONNECTED", "connected"),
        Column("HEAD", "head"),
        Column("SINCE", "head_since@"),
        Column("STATE", "state"),
        Column("RECORDS", "records"),
        Column("DELIVERED", "delivered"),
        Column("AT SITE", "at_site"),
        Column("MISSING", "missing"),
    ];
    table::answer(args.remote.json, &columns, items)?;
    Ok(exit::OK)
}
