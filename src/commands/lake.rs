//! `millpond lake`.

use std::process::ExitCode;

use serde_json::json;

use crate::{
    commands::{
        remote::Remote,
        table::{self, Column},
    },
    exit,
};

/// Show the files of the cloud's archive, or put it in order
///
/// The files that the newest manifest names are the archive: others in the folder were merged into them, or were never committed. Their paths are
/// relative to the folder or bucket of `cloud.lake`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond lake files --data cloud-data
  millpond lake files --data cloud-data --json      for a list of files to read with DuckDB
  millpond lake archive --data cloud-data           moves what is settled, merges, ages and sweeps, now")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show the files
    Files {
        #[command(flatten)]
        remote: Remote,
    },
    /// Move what is settled into the archive, merge small files, age old ones, and remove what nobody needs
    Archive {
        #[command(flatten)]
        remote: Remote,
    },
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (remote, answer) = match args.what {
        What::Files { remote } => {
            let answer = remote.get("/v1/cloud/lake").await?;
            (remote, answer)
        }
        What::Archive { remote } => {
            let answer = remote.post("/v1/cloud/archive", &json!({})).await?;
            (remote, answer)
        }
    };
    let items = table::items(&answer);
    let columns = [
        Column("TENANT", "tenant"),
        Column("DAY", "day"),
        Column("TIER", "tier"),
        Column("EVENTS", "rows"),
        Column("BYTES", "bytes"),
        Column("PATH", "path"),
    ];
    let is_table = table::answer(remote.json, &columns, items)?;
    if is_table {
        eprintln!("manifest {}: {} events, {} bytes", answer["manifest"], answer["rows"], answer["bytes"]);
    }
    Ok(exit::OK)
}
