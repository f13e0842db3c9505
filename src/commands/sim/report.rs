//! `millpond sim report`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use millpond_sim::{promise::Promise, report::Report};
use serde_json::json;

use super::{html, words};
use crate::{
    commands::{
        out,
        table::{self, Column},
    },
    exit::{self, Failure, Told},
    world::os,
};

/// Show what runs have shown: a table, or a page for a browser
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond sim run crash_storm --report crash.json
  millpond sim report crash.json offline.json
  millpond sim report *.json --html rehearsals.html     one file that needs nothing else")]
pub struct Args {
    /// What `sim run --report` wrote
    #[arg(required = true, value_name = "REPORT.json")]
    reports: Vec<PathBuf>,
    /// Write a page instead of a table
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let reports: Vec<Report> = args.reports.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    match &args.html {
        Some(path) => {
            os::write(path, html::page(&reports).as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
            eprintln!("written: {}", path.display());
        }
        None => out(table_of(&reports))?,
    }
    Ok(exit::OK)
}

fn read(path: &Path) -> anyhow::Result<Report> {
    let name = path.display();
    let bytes = os::read(path)
        .map_err(|error| Told::new(format!("cannot read {name}")).failure(Failure::NoInput).because(error))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let told = Told::new(format!("{name} is no report of a run")).failure(Failure::BadInput).because(error);
        told.hint("`millpond sim run SCENARIO --report FILE.json` writes one").into()
    })
}

fn table_of(reports: &[Report]) -> String {
    let rows: Vec<serde_json::Value> = reports
        .iter()
        .map(|report| {
            let mut broken: Vec<&str> =
                report.broken.iter().map(|broken| broken.promise.map_or("the run", Promise::name)).collect();
            broken.dedup();
            let peak = report.nodes.iter().map(|node| node.disk.peak_used).max().unwrap_or_default();
            json!({
                "scenario": report.scenario,
                "seed": report.seed,
                "length": words::time(report.simulated_ns).to_string(),
                "measured": report.counts.measured,
                "acknowledged": report.counts.acknowledged,
                "stored": report.counts.stored,
                "faults": report.faults.values().sum::<u64>(),
                "losses": report.nodes.iter().map(|node| node.disk.power_losses).sum::<u64>(),
                "peak": words::bytes(peak),
                "promises": if broken.is_empty() { "kept".to_owned() } else { format!("broken: {}", broken.join(", ")) },
            })
        })
        .collect();
    let columns = [
        Column("SCENARIO", "scenario"),
        Column("SEED", "seed"),
        Column("SIMULATED", "length"),
        Column("MEASURED", "measured"),
        Column("ACKNOWLEDGED", "acknowledged"),
        Column("STORED", "stored"),
        Column("FAULTS", "faults"),
        Column("POWER LOSSES", "losses"),
        Column("DISK AT MOST", "peak"),
        Column("PROMISES", "promises"),
    ];
    table::render(&columns, &rows)
}
