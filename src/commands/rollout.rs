//! `millpond rollout`.

use std::process::ExitCode;

use millpond_core::time::Timestamp;
use serde_json::Value;

use crate::{
    commands::{
        out,
        remote::Remote,
        table::{self, Column},
    },
    exit::{self, Failure, Told},
};

/// Show what was rolled out to the sites of a cloud, or take it back
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond rollout list --data cloud-data
  millpond rollout show                             the newest one: at which site, and what happened
  millpond rollout undo 7                           its sites run what they ran before")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show all rollouts, the newest first
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Show how far a rollout is, at which site, and what happened
    Show {
        /// Its number; the newest when it is not said
        rollout: Option<u64>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Take a rollout back
    Undo {
        rollout: u64,
        #[command(flatten)]
        remote: Remote,
    },
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::List { remote } => list(&remote).await?,
        What::Show { rollout, remote } => {
            let answer = remote.get("/v1/cloud/rollouts").await?;
            let wanted = |one: &&Value| rollout.is_none_or(|number| one["rollout"] == number);
            let Some(one) = table::items(&answer).iter().find(wanted) else {
                let told = Told::new("there is no such rollout").failure(Failure::BadInput);
                return Err(told.hint("`millpond rollout list` shows all").into());
            };
            show(&remote, one)?;
        }
        What::Undo { rollout, remote } => {
            let answer = remote.ask("POST", &format!("/v1/cloud/rollouts/{rollout}/undo"), None).await?;
            if remote.json {
                out(format!("{answer}\n"))?;
            }
            eprintln!("Rollout {rollout} is taken back; its sites run what they ran before.");
        }
    }
    Ok(exit::OK)
}

async fn list(remote: &Remote) -> anyhow::Result<()> {
    let answer = remote.get("/v1/cloud/rollouts").await?;
    let items = table::items(&answer);
    if remote.json {
        return table::print_json(items);
    }
    let columns = [
        Column("ROLLOUT", "rollout"),
        Column("HEAD", "head"),
        Column("TENANT", "tenant"),
        Column("SITES", "sites"),
        Column("STEP", "step"),
        Column("SINCE", "since@"),
        Column("WHY", "why"),
    ];
    table::print(&columns, items)
}

fn show(remote: &Remote, one: &Value) -> anyhow::Result<()> {
    if remote.json {
        return out(format!("{one}\n"));
    }
    let text = |key: &str| one[key].as_str().unwrap_or_default();
    let mut said = format!("rollout {} of head {}: {}\n", one["rollout"], text("head"), text("step"));
    if !text("why").is_empty() {
        said.push_str(&format!("taken back: {}\n", text("why")));
    }
    said.push('\n');
    for line in one["said"].as_array().into_iter().flatten() {
        let at = Timestamp::from_millis(line["at"].as_i64().unwrap_or_default());
        said.push_str(&format!("{at}  {}\n", line["words"].as_str().unwrap_or_default()));
    }
    said.push('\n');
    out(said)?;
    let sites = one["at"].as_array().map_or(&[][..], Vec::as_slice);
    let columns = [
        Column("SITE", "site"),
        Column("CANARY", "canary"),
        Column("CONNECTED", "connected"),
        Column("STATE", "state"),
        Column("SINCE", "since@"),
        Column("ALERTS", "alerts"),
        Column("STARTS", "starts"),
    ];
    table::print(&columns, sites)?;
    let shadow = |site: &Value| {
        let rows = site["shadow"].as_array().cloned().unwrap_or_default().into_iter();
        let name = site["site"].clone();
        rows.map(move |mut row| {
            row["site"] = name.clone();
            row
        })
    };
    let shadows: Vec<Value> = sites.iter().flat_map(shadow).collect();
    if !shadows.is_empty() {
        out(
            "\nin the shadow: raisings of the rule that is there and of the new one, and those that the other one has not seen\n",
        )?;
        let columns = [
            Column("SITE", "site"),
            Column("RULE", "rule"),
            Column("FIRED OLD", "fired_old"),
            Column("FIRED NEW", "fired_new"),
            Column("ONLY OLD", "only_old"),
            Column("ONLY NEW", "only_new"),
        ];
        table::print(&columns, &shadows)?;
    }
    Ok(())
}
