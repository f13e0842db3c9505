//! `millpond sim list`.

use std::process::ExitCode;

use millpond_sim::scenario::{SHIPPED, Scenario};
use serde_json::{Value, json};

use crate::{
    commands::{
        out,
        sim::stage,
        table::{self, Column},
    },
    exit,
};

/// Show the scenarios that come with the program, or the text of one
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond sim list
  millpond sim list crash_storm > my.toml     a scenario to start from")]
pub struct Args {
    /// Print this one as TOML
    #[arg(value_name = "SCENARIO")]
    name: Option<String>,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(name) = args.name {
        out(stage::shipped(&name)?.text)?;
        return Ok(exit::OK);
    }
    let items: Result<Vec<Value>, _> = SHIPPED.iter().map(|shipped| Scenario::parse(shipped.text).map(line)).collect();
    table::print(&[Column("SCENARIO", "name"), Column("LENGTH", "length"), Column("WHAT HAPPENS", "about")], &items?)?;
    Ok(exit::OK)
}

fn line(scenario: Scenario) -> Value {
    let length = (scenario.duration + scenario.settle).to_string();
    json!({ "name": scenario.name, "length": length, "about": scenario.about })
}
