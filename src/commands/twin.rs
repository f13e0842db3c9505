//! `millpond twin`.

use std::process::ExitCode;

use millpond_gateway::client::http::escape;
use serde_json::{Value, json};

use super::device::{assignments, show};
use crate::{
    commands::{
        out,
        remote::Remote,
        table::{self, Column},
    },
    exit::{self, Told},
};

/// Show what a device should be and says it is, change it, and decide where people disagreed
///
/// What a device should be may be said at any node, also without a network; nodes exchange it when they meet. When two people say different
/// things without knowing of each other, the later one holds on every node and both are shown as a conflict until somebody decides.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond twin get press-1
  millpond twin set press-1 speed=5 net.rate=10 label=
  millpond twin conflicts
  millpond twin resolve desired press-1 /speed 1")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show what a device should be, says it is, and still has to do about it
    Get {
        device: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Say what a device should be; dots lead into objects, an empty value removes a key
    Set {
        device: String,
        /// Values are JSON, or else text
        #[arg(value_name = "KEY=VALUE", required = true)]
        values: Vec<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show what several people wrote at once
    Conflicts {
        #[command(flatten)]
        remote: Remote,
    },
    /// Decide for one of the versions of a conflict
    Resolve {
        /// As `conflicts` shows it: registry, desired, rules, windows, …
        kind: String,
        /// The device or text
        name: String,
        /// The path in what is said of a device, such as /speed; `-` for a text
        path: String,
        /// The number of the version that is to hold
        version: usize,
        #[command(flatten)]
        remote: Remote,
    },
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Get { device, remote } => {
            show(&remote, &remote.get(&format!("/v1/devices/{}/twin", escape(&device))).await?)?;
        }
        What::Set { device, values, remote } => {
            let path = format!("/v1/devices/{}/twin/desired", escape(&device));
            show(&remote, &remote.ask("PATCH", &path, Some(assignments(&values)?.to_string())).await?)?;
        }
        What::Conflicts { remote } => conflicts(&remote).await?,
        What::Resolve { kind, name, path, version, remote } => {
            let path = if path == "-" { String::new() } else { path };
            let all = remote.get("/v1/site/conflicts").await?;
            let found = table::items(&all).iter().find(|conflict| {
                conflict["kind"] == kind.as_str()
                    && conflict["name"] == name.as_str()
                    && conflict["path"] == path.as_str()
            });
            let chosen = found.and_then(|conflict| conflict["versions"].get(version));
            let Some(chosen) = chosen else {
                let told = Told::new(format!("there is no version {version} of a conflict about {kind} {name} {path}"));
                return Err(told.hint("see `millpond twin conflicts`").into());
            };
            let decision =
                json!({ "kind": kind, "name": name, "path": path, "version": version, "stamp": chosen["stamp"] });
            show(&remote, &remote.post("/v1/site/conflicts/resolve", &decision).await?)?;
        }
    }
    Ok(exit::OK)
}

async fn conflicts(remote: &Remote) -> anyhow::Result<()> {
    let answer = remote.get("/v1/site/conflicts").await?;
    let items = table::items(&answer);
    if remote.json {
        return table::print_json(items);
    }
    if items.is_empty() {
        eprintln!("none");
        return Ok(());
    }
    let columns = [
        Column("KIND", "kind"),
        Column("NAME", "name"),
        Column("PATH", "path"),
        Column("VERSION", "version"),
        Column("HOLDS", "holds"),
        Column("BY", "by"),
        Column("AT", "at@"),
        Column("VALUE", "value"),
    ];
    out(table::render(&columns, &rows(items)))
}

/// One line per version.
fn rows(conflicts: &[Value]) -> Vec<Value> {
    let mut rows = Vec::new();
    for conflict in conflicts {
        for (at, version) in conflict["versions"].as_array().into_iter().flatten().enumerate() {
            let value = if version["removed"] == true { "(removed)".to_owned() } else { version["value"].to_string() };
            let path = conflict["path"].as_str().filter(|path| !path.is_empty()).unwrap_or("-");
            rows.push(json!({
                "kind": conflict["kind"],
                "name": conflict["name"],
                "path": path,
                "version": at,
                "holds": at == 0,
                "by": version["author_name"],
                "at": version["at"],
                "value": value,
            }));
        }
    }
    rows
}
