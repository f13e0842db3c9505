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
///
/// Asked of a node of the cloud with the name of a SITE: where each record of the site has gone, a line per journal. The parts always
/// add up to RECORDS: delivered; aggregated (stayed at the site by its terms with the cloud); expired (given up at the site before it could be
/// delivered, with the reasons); missing (neither here nor accounted for: something is wrong); and still at the site.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond ledger
  millpond ledger --json                            with all ranges
  millpond ledger plant-7 --data cloud-data         a site, as the cloud sees it")]
pub struct Args {
    /// A site that delivers to the cloud
    #[arg(value_name = "SITE")]
    site: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(site) = &args.site {
        return of_site(&args.remote, site).await;
    }
    let answer = args.remote.get("/v1/site/ledger").await?;
    let items = table::items(&answer);
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
    let is_table = table::answer(args.remote.json, &columns, items)?;
    if is_table {
        eprintln!("own records: up to {}, confirmed by the site up to {}", answer["head"], answer["confirmed"]);
    }
    Ok(exit::OK)
}

async fn of_site(remote: &Remote, site: &str) -> anyhow::Result<ExitCode> {
    let answer = remote.get(&format!("/v1/cloud/sites/{site}/ledger")).await?;
    let items = table::items(&answer);
    let columns = [
        Column("NODE", "name"),
        Column("LIFE", "incarnation"),
        Column("RECORDS", "records"),
        Column("DELIVERED", "delivered"),
        Column("AGGREGATED", "aggregated"),
        Column("EXPIRED", "expired"),
        Column("QUARANTINED", "quarantined"),
        Column("MISSING", "missing"),
        Column("AT SITE", "at_site"),
        Column("CLOSED", "closed"),
    ];
    table::answer(remote.json, &columns, items)?;
    Ok(exit::OK)
}
