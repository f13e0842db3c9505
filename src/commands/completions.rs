//! `millpond completions`.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{cli::Cli, commands::out, exit};

/// Print completions for a shell
///
/// For example: millpond completions bash > ~/.local/share/bash-completion/completions/millpond
#[derive(Debug, clap::Args)]
pub struct Args {
    shell: Shell,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "millpond", &mut script);
    out(script)?;
    Ok(exit::OK)
}
