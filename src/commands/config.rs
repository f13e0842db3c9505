//! `millpond config`.

use std::{path::PathBuf, process::ExitCode};

use crate::{
    commands::{out, styled},
    config,
    exit::{self, Failure},
    world::World,
};

/// Show the configuration's reference, its JSON schema, or a file with all defaults filled in
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Print the reference page in Markdown
    Reference,
    /// Print the JSON schema of the file, for editors
    Schema,
    /// Print the configuration that a node would use, with all defaults filled in
    Show(Show),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond config show
  millpond config show --config edge.toml --set node.name=press-hall")]
struct Show {
    /// Configuration file; none means all defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a key as `edge --set` would
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Reference => out(config::reference_page())?,
        What::Schema => out(serde_json::to_string_pretty(&config::json_schema())? + "\n")?,
        What::Show(show) => match config::load(&World::client(), show.config.as_deref(), &show.set) {
            Ok(loaded) => out(toml::to_string(&loaded.config)?)?,
            Err(problems) => {
                eprintln!("{}", problems.render(styled()));
                return Ok(ExitCode::from(Failure::BadConfig as u8));
            }
        },
    }
    Ok(exit::OK)
}
