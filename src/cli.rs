//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{commands, exit};

/// An edge data mesh in one program.
///
/// Devices publish to the node by MQTT or HTTP. It stores before it acknowledges, computes windows, raises alerts, and survives being
/// killed at any moment.
#[derive(Debug, Parser)]
#[command(name = "millpond", version, about, max_term_width = 100, after_help = AFTER_HELP, after_long_help = after_long_help())]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Start here:
  millpond demo                            two sites, a cloud and simulated machines; kill a node, cut a line
  millpond edge --config edge.toml         a node for real devices
  millpond cloud --config cloud.toml       a node to which sites deliver
  millpond explain MP0103                  what a code means";

const EXAMPLES: &str = "Start here:
  millpond demo                            two sites, a cloud and simulated machines; kill a node, cut a line
  millpond edge --config edge.toml         a node for real devices
  millpond validate edge.toml              all problems of a configuration at once
  millpond query press-1 temperature       what a device measured
  millpond members                         the boxes of the site
  millpond twin set press-1 speed=5        what a device should be
  millpond sim run crash_storm             power losses every few seconds, rehearsed
  millpond explain MP0103                  what a code means

Data goes to stdout, words go to stderr.";

fn after_long_help() -> String {
    format!("{EXAMPLES}\n\n{}", exit::CODES_HELP)
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(commands::demo::Args),
    Edge(commands::edge::Args),
    Cloud(commands::cloud::Args),
    Bench(commands::bench::Args),
    Replay(commands::replay::Args),
    Sim(commands::sim::Args),
    Validate(commands::validate::Args),
    Config(commands::config::Args),
    Query(commands::query::Args),
    Sql(commands::sql::Args),
    Devices(commands::devices::Args),
    Device(commands::device::Args),
    Twin(commands::twin::Args),
    Rules(commands::rules::Args),
    Members(commands::members::Args),
    Ledger(commands::ledger::Args),
    Uplinks(commands::uplinks::Args),
    Sites(commands::sites::Args),
    Lake(commands::lake::Args),
    Apply(commands::apply::Args),
    Rollout(commands::rollout::Args),
    Alerts(commands::alerts::Args),
    Windows(commands::windows::Args),
    Tap(commands::tap::Args),
    #[command(name = "deadletter")]
    DeadLetter(commands::dead_letter::Args),
    Journal(commands::journal::Args),
    Site(commands::site::Args),
    Node(commands::node::Args),
    HashPassword(commands::secrets::HashPassword),
    Token(commands::secrets::Token),
    Explain(commands::explain::Args),
    Completions(commands::completions::Args),
    Version(commands::version::Args),
}

impl Cli {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Demo(args) => commands::demo::run(args).await,
            Command::Edge(args) => commands::edge::run(args).await,
            Command::Cloud(args) => commands::cloud::run(args).await,
            Command::Bench(args) => commands::bench::run(args).await,
            Command::Replay(args) => commands::replay::run(args).await,
            Command::Sim(args) => commands::sim::run(args).await,
            Command::Validate(args) => commands::validate::run(args).await,
            Command::Config(args) => commands::config::run(args).await,
            Command::Query(args) => commands::query::run(args).await,
            Command::Sql(args) => commands::sql::run(args).await,
            Command::Devices(args) => commands::devices::run(args).await,
            Command::Device(args) => commands::device::run(args).await,
            Command::Twin(args) => commands::twin::run(args).await,
            Command::Rules(args) => commands::rules::run(args).await,
            Command::Members(args) => commands::members::run(args).await,
            Command::Ledger(args) => commands::ledger::run(args).await,
            Command::Uplinks(args) => commands::uplinks::run(args).await,
            Command::Sites(args) => commands::sites::run(args).await,
            Command::Lake(args) => commands::lake::run(args).await,
            Command::Apply(args) => commands::apply::run(args).await,
            Command::Rollout(args) => commands::rollout::run(args).await,
            Command::Alerts(args) => commands::alerts::run(args).await,
            Command::Windows(args) => commands::windows::run(args).await,
            Command::Tap(args) => commands::tap::run(args).await,
            Command::DeadLetter(args) => commands::dead_letter::run(args).await,
            Command::Journal(args) => commands::journal::run(args).await,
            Command::Site(args) => commands::site::run(args).await,
            Command::Node(args) => commands::node::run(args).await,
            Command::HashPassword(args) => commands::secrets::hash_password(args).await,
            Command::Token(args) => commands::secrets::token(args).await,
            Command::Explain(args) => commands::explain::run(args).await,
            Command::Completions(args) => commands::completions::run(args).await,
            Command::Version(args) => commands::version::run(args).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_is_for() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }
}
