//! `millpond alerts`.

use std::process::ExitCode;

use millpond_gateway::client::http::{escape, query_string};
use serde_json::json;

use crate::{
    commands::{
        out,
        remote::Remote,
        table::{self, Column},
    },
    exit,
};

/// Show alerts, acknowledge or resolve one
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond alerts --state firing
  millpond alerts --rule overheat --json
  millpond alerts --acknowledge ID
  millpond alerts --resolve ID")]
pub struct Args {
    /// Only alerts in this state: pending, firing or resolved
    #[arg(long)]
    state: Option<String>,
    /// Only alerts of this rule
    #[arg(long)]
    rule: Option<String>,
    /// Alerts at most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Say that someone looks after this alert
    #[arg(long, value_name = "ID", conflicts_with_all = ["resolve", "state", "rule", "limit"])]
    acknowledge: Option<String>,
    /// Say that this alert is over
    #[arg(long, value_name = "ID", conflicts_with_all = ["state", "rule", "limit"])]
    resolve: Option<String>,
    /// Of another site, from which records are fetched (`millpond site trusts`)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["acknowledge", "resolve"])]
    site: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    for (id, action) in [(&args.acknowledge, "acknowledge"), (&args.resolve, "resolve")] {
        if let Some(id) = id {
            let answer = args.remote.post(&format!("/v1/alerts/{}/{action}", escape(id)), &json!({})).await?;
            out(format!("{answer}\n"))?;
            return Ok(exit::OK);
        }
    }
    let query = query_string(&[
        ("state", args.state),
        ("rule", args.rule),
        ("limit", args.limit.map(|limit| limit.to_string())),
        ("site", args.site),
    ]);
    let answer = args.remote.get(&format!("/v1/alerts{query}")).await?;
    let items = table::items(&answer);
    if args.remote.json {
        table::print_json(items)?;
    } else {
        let columns = [
            Column("ID", "id"),
            Column("STATE", "state"),
            Column("SEVERITY", "severity"),
            Column("RULE", "rule"),
            Column("KEY", "key"),
            Column("SINCE", "since@"),
            Column("FIRED", "fired@"),
            Column("RESOLVED", "resolved@"),
            Column("VALUE", "value"),
            Column("ACKNOWLEDGED", "acknowledged_by"),
            Column("MESSAGE", "message"),
        ];
        table::print(&columns, items)?;
    }
    Ok(exit::OK)
}
