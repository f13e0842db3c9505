//! `millpond site`.

use std::{path::PathBuf, process::ExitCode};

use millpond_cluster::identity::{self, Newcomer, Terms, Trusted, is_file_name};
use millpond_core::record::Class;

use super::node::{identity_told, newcomer_of};
use crate::{
    commands::out,
    exit::{self, Failure, Told},
    world::{World, os},
};

/// Found a site, or trust another one
///
/// A site is a set of nodes that know each other by certificates of one authority. Its key stays on the node at which the site was
/// founded: others join through that node. Keep a copy of DATA_DIR/identity in a safe place; without the key no node can join any more.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond site init plant-7 --node press-hall
  millpond node invite --address 10.0.0.5:7800      on the founder: an invitation for the next node
  millpond node join mpj1-...                       on the next node
  millpond site trust plant-8.crt --exchange alert --exchange pane")]
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
    /// Exchange classes of data with the nodes of another site
    Trust {
        /// The other site's DATA_DIR/identity/site.crt, as it came from there
        #[arg(value_name = "FILE")]
        certificate: PathBuf,
        /// What may be exchanged: alert, state, pane, raw; may be repeated
        #[arg(long, value_name = "CLASS", default_values = ["alert", "pane"])]
        exchange: Vec<String>,
        /// Data directory of the node
        #[arg(long, default_value = "millpond-data", value_name = "DIR")]
        data: PathBuf,
    },
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
        What::Trust { certificate, exchange, data } => {
            let terms = Terms { classes: classes_of(&exchange)?, devices: vec!["*".to_owned()] };
            let bytes = os::read(&certificate).map_err(|error| {
                Told::new(format!("cannot read {}", certificate.display())).failure(Failure::NoInput).because(error)
            })?;
            let trusted = Trusted::new(&String::from_utf8_lossy(&bytes), terms).map_err(identity_told)?;
            let env = World::new(&data)?;
            identity::save_trusted(env.disk.as_ref(), &trusted).map_err(identity_told)?;
            eprintln!("Site {} is trusted with: {}.", trusted.site, exchange.join(", "));
            eprintln!("The other site must trust this one, too: give it {}.", data.join("identity/site.crt").display());
        }
    }
    Ok(exit::OK)
}

fn classes_of(names: &[String]) -> anyhow::Result<Vec<Class>> {
    let class = |name: &String| Class::ALL.into_iter().find(|class| class.name() == name.as_str());
    names
        .iter()
        .map(|name| {
            let told = || Told::new(format!("there is no class `{name}`")).hint("alert, state, pane or raw");
            class(name).ok_or_else(|| told().into())
        })
        .collect()
}
