//! `millpond members`.

use std::process::ExitCode;

use crate::{
    commands::{
        remote::Remote,
        table::{self, Column},
    },
    exit,
};

/// Show the nodes of the site: who is up, how far away, with which clock
///
/// STATE is what the asked node believes: `up`, `suspected` (it did not answer, and others are asked about it) or `down`. A node that is down
/// is stood in for by those that hold its records. CLOCK MS is how far a node's wall clock is ahead of the asked node's.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond members
  millpond members --url http://10.0.0.6:8080      as another node sees it
  millpond members --json")]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let answer = args.remote.get("/v1/site/members").await?;
    let items = table::items(&answer);
    let columns = [
        Column("NAME", "name"),
        Column("STATE", "state"),
        Column("SELF", "self"),
        Column("LINKED", "linked"),
        Column("ADDRESS", "address"),
        Column("RTT MS", "rtt_ms"),
        Column("CLOCK MS", "clock_ahead_ms"),
        Column("DEVICES", "devices"),
        Column("ORIGIN", "origin"),
    ];
    table::answer(args.remote.json, &columns, items)?;
    Ok(exit::OK)
}
