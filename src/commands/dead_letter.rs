//! `millpond deadletter`.

use std::process::ExitCode;

use millpond_gateway::client::http::query_string;
use serde_json::json;

use crate::{
    commands::{
        out,
        remote::Remote,
        table::{self, Column},
    },
    exit::{self, Told},
};

/// Show rejected input, and submit it again when its reason is gone
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show dead letters with their reasons
    List(List),
    /// Submit dead letters again: those that pass leave the store, the others stay with their new reason
    Replay(Replay),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond deadletter list
  millpond deadletter list --reason out_of_range --device press-1")]
struct List {
    /// Only this reason, as in `out_of_range`
    #[arg(long)]
    reason: Option<String>,
    /// Only this device
    #[arg(long)]
    device: Option<String>,
    /// Only letters after this number
    #[arg(long, value_name = "ID")]
    after: Option<u64>,
    /// Letters at most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond deadletter replay 17 18
  millpond deadletter replay --reason unknown_metric
  millpond deadletter replay --all")]
struct Replay {
    /// Numbers of the letters
    #[arg(value_name = "ID")]
    ids: Vec<u64>,
    /// All letters with this reason
    #[arg(long, conflicts_with = "ids")]
    reason: Option<String>,
    /// All letters
    #[arg(long, conflicts_with_all = ["ids", "reason"])]
    all: bool,
    #[command(flatten)]
    remote: Remote,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::List(list) => show(list).await,
        What::Replay(replay) => submit_again(replay).await,
    }
}

async fn show(args: List) -> anyhow::Result<ExitCode> {
    let query = query_string(&[
        ("reason", args.reason),
        ("device", args.device),
        ("after", args.after.map(|id| id.to_string())),
        ("limit", args.limit.map(|limit| limit.to_string())),
    ]);
    let answer = args.remote.get(&format!("/v1/dead-letters{query}")).await?;
    let items = table::items(&answer);
    if args.remote.json {
        table::print_json(items)?;
        return Ok(exit::OK);
    }
    let columns = [
        Column("ID", "id"),
        Column("RECEIVED", "received@"),
        Column("CODE", "code"),
        Column("REASON", "reason"),
        Column("DEVICE", "device_id"),
        Column("DOOR", "door"),
        Column("LOGIN", "login"),
        Column("DETAIL", "detail"),
    ];
    table::print(&columns, items)?;
    Ok(exit::OK)
}

async fn submit_again(args: Replay) -> anyhow::Result<ExitCode> {
    let body = match (args.ids.is_empty(), args.reason) {
        (false, _) => json!({ "ids": args.ids }),
        (true, Some(reason)) => json!({ "reason": reason }),
        (true, None) if args.all => json!({}),
        (true, None) => {
            let told = Told::new("which dead letters shall be submitted again?");
            return Err(told.hint("name their numbers, or --reason REASON, or --all").into());
        }
    };
    let answer = args.remote.post("/v1/dead-letters/replay", &body).await?;
    out(format!("{answer}\n"))?;
    Ok(exit::OK)
}
