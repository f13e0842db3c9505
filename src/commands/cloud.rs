//! `millpond cloud`.

use std::{path::PathBuf, process::ExitCode};

use millpond_cluster::identity::{self, NodeIdentity};

use super::{
    edge::{self, Role},
    node::{identity_told, newcomer_of},
};
use crate::{commands::styled, config, exit::Failure, world::World};

/// Run a node of the cloud, to which sites deliver
///
/// The cloud is a site of its own; at the first start it is founded with the name of --name, in the data directory. Sites and the cloud get to
/// know each other by their certificates, DATA_DIR/identity/site.crt:
///
///   millpond site trust plant-7.crt --data CLOUD_DATA          at the cloud
///   millpond site trust cloud.crt --uplink HOST:7800           at each node of plant-7
///
/// From then on everything that the nodes acknowledge arrives here once, whatever the line does. `millpond sites` and `millpond ledger SITE`
/// show how far it has come. Prints one line with `ready` to stdout when all doors are open.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond cloud --config cloud.toml
  millpond cloud --set node.data=cloud-data --set http.listen=127.0.0.1:9080 --set mqtt.listen=127.0.0.1:9883
  millpond sites --url http://127.0.0.1:9080 --data cloud-data")]
pub struct Args {
    /// Configuration file; `millpond config reference` explains every key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a key of the configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Name of the cloud, as its certificates will have it; only the first start looks at it
    #[arg(long, default_value = "cloud", value_name = "NAME")]
    name: String,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let loaded = match config::load(&World::client(), args.config.as_deref(), &args.set) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("{}", problems.render(styled()));
            return Ok(ExitCode::from(Failure::BadConfig as u8));
        }
    };
    let data = &loaded.config.node.data;
    let env = World::new(data)?;
    if NodeIdentity::load(env.disk.as_ref()).map_err(identity_told)?.is_none() {
        let newcomer = newcomer_of(&env, data, loaded.config.node.name.clone())?;
        identity::found(&env, &args.name, &newcomer).map_err(identity_told)?;
        eprintln!("The cloud {} is founded; sites need {}.", args.name, data.join("identity/site.crt").display());
    }
    edge::serve(loaded, Role::Cloud).await
}
