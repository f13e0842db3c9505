//! `millpond site`.

mod trust;

use std::{path::PathBuf, process::ExitCode};

use millpond_cluster::identity::{self, Newcomer, is_file_name};

use super::node::{identity_told, newcomer_of};
use crate::{
    commands::out,
    exit::{self, Told},
    world::World,
};

/// Found a site, or exchange records with another one
///
/// A site is a set of nodes that know each other by certificates of one authority. Its key stays on the node at which the site was
/// founded: others join through that node. Keep a copy of DATA_DIR/identity in a safe place; without the key no node can join any more.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond site init plant-7 --node press-hall
  millpond node invite --address 10.0.0.5:7800      on the founder: an invitation for the next node
  millpond node join mpj1-...                       on the next node
  millpond site trust plant-8.crt --classes alert,pane --devices 'press-*'
  millpond site trust plant-8.crt --address 10.1.0.5:7800
  millpond site trusts
  millpond site distrust plant-8")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Found a site with this node as its first member; the node must not run meanwhile
    Init {
        /// Name of the site: letters, digits, `-`, `_` and `.`
        site: String,
        /// Name of this node, for people
        #[arg(long, value_name = "NAME")]
        node: String,
        /// Data directory of the node, created when it is missing
        #[arg(long, default_value = "millpond-data", value_name = "DIR")]
        data: PathBuf,
    },
    /// Let the nodes of another site have some of this one's records, and fetch theirs
    Trust(trust::Trust),
    /// Show the sites that are trusted, with what
    Trusts(trust::Trusts),
    /// End what is exchanged with another site
    Distrust(trust::Distrust),
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Init { site, node, data } => {
            if !is_file_name(&site) {
                let told = Told::new(format!("{site:?} cannot be the name of a site"));
                return Err(told.hint("up to 64 letters, digits, `-`, `_` and `.`, for example plant-7").into());
            }
            let env = World::new(&data)?;
            let newcomer: Newcomer = newcomer_of(&env, &data, node)?;
            let identity = identity::found(&env, &site, &newcomer).map_err(identity_told)?;
            out(format!("{}\n", identity.origin))?;
            eprintln!("Site {site} is founded; {} is its first node, with the origin above.", identity.node);
            eprintln!("Keep a copy of {}: without it no node can join any more.", data.join("identity").display());
            eprintln!("Next: start the node, then `millpond node invite` for each other one.");
        }
        What::Trust(args) => trust::trust(args)?,
        What::Trusts(args) => trust::trusts(&args)?,
        What::Distrust(args) => trust::distrust(&args)?,
    }
    Ok(exit::OK)
}
