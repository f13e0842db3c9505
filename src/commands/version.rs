//! `millpond version`.

use std::process::ExitCode;

use crate::{commands::out, exit};

/// Show the version
#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(_: Args) -> anyhow::Result<ExitCode> {
    out(format!("millpond {}\n", env!("CARGO_PKG_VERSION")))?;
    Ok(exit::OK)
}
