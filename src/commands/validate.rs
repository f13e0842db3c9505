//! `millpond validate`.

use std::{path::PathBuf, process::ExitCode};

use crate::{
    commands::{out, styled},
    config,
    exit::{self, Failure},
    world::World,
};

/// Check configuration files and show all their problems at once
///
/// Nothing is started or changed. Problems go to stderr with the place and a hint; the exit code is 78 when there is an error.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond validate edge.toml
  millpond validate edge.toml --set mqtt.listen=0.0.0.0:1883")]
pub struct Args {
    /// Files to check, each for itself
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Override a key as `edge --set` would
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut failed = false;
    for file in &args.files {
        let (problems, valid) = match config::load(&World::client(), Some(file), &args.set) {
            Ok(loaded) => (loaded.warnings, true),
            Err(problems) => (problems, false),
        };
        if !problems.list.is_empty() {
            eprintln!("{}\n", problems.render(styled()));
        }
        if valid {
            out(format!("{}: valid\n", file.display()))?;
        } else {
            failed = true;
            let errors = problems.errors();
            eprintln!("{}: {errors} error{}", file.display(), if errors == 1 { "" } else { "s" });
        }
    }
    Ok(if failed { ExitCode::from(Failure::BadConfig as u8) } else { exit::OK })
}
