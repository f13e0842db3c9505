//! `millpond edge`.

use std::{path::PathBuf, process::ExitCode};

use crate::{
    commands::{out, styled},
    config::{self, Loaded},
    exit::{self, Failure, Told},
    roles::{edge::Edge, log, signals::Signals},
    world::World,
};

/// Run a node for real devices
///
/// Prints one line with `ready` and its addresses to stdout when all doors are open. SIGINT (ctrl-C) and SIGTERM end it cleanly; a second one
/// ends it at once, which loses nothing acknowledged either.
///
/// Without --config all defaults hold: doors on loopback, data in ./millpond-data, a login required.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond edge
  millpond edge --config edge.toml
  millpond edge --config edge.toml --set node.name=press-hall --set mqtt.listen=0.0.0.0:1883
  millpond edge --set mqtt.anonymous=true --set node.data=/tmp/pond")]
pub struct Args {
    /// Configuration file; `millpond config reference` explains every key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a key of the configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let loaded = match config::load(&World::client(), args.config.as_deref(), &args.set) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("{}", problems.render(styled()));
            return Ok(ExitCode::from(Failure::BadConfig as u8));
        }
    };
    serve(loaded, Role::Edge).await
}

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Edge,
    Cloud,
}

/// Runs a node until it is told to end.
///
/// # Errors
/// When it does not start, or ends by itself.
pub async fn serve(loaded: Loaded, role: Role) -> anyhow::Result<ExitCode> {
    if !loaded.warnings.list.is_empty() {
        eprintln!("{}", loaded.warnings.render(styled()));
    }
    let config = loaded.config;
    if let Some(at) = config.auth.users.iter().position(|user| role == Role::Edge && user.tenant.is_some()) {
        let told = Told::new(format!("`auth.users[{at}].tenant`: only the nodes of a cloud know tenants"));
        return Err(told.code("MP0306").hint("leave it out here, or start the node with `millpond cloud`").into());
    }
    log::start(&config.log).map_err(|error| {
        Told::new("MILLPOND_LOG cannot be read")
            .hint("for example MILLPOND_LOG=info,millpond_gateway=debug")
            .because(error)
    })?;
    let mut signals = Signals::new()?;
    let opening = Edge::open(&config, role);
    let mut edge = tokio::select! {
        biased;
        signal = signals.next() => {
            tracing::info!(signal, "ended before the node was ready");
            return Ok(exit::OK);
        }
        edge = opening => edge?,
    };
    out(edge.ready_line(&config.node.name) + "\n")?;
    tracing::info!(node = %config.node.name, mqtt = %edge.mqtt, http = %edge.http, incarnation = edge.running.opened.incarnation.0, "ready");
    let broken = tokio::select! {
        biased;
        signal = signals.next() => {
            tracing::info!(signal, "closing the doors");
            None
        }
        why = edge.ended() => Some(why),
    };
    tokio::select! {
        biased;
        signal = signals.next() => {
            tracing::warn!(signal, "ended at once; what was acknowledged is on disk");
            return Ok(exit::FAILED);
        }
        () = edge.close() => {}
    }
    match broken {
        None => {
            tracing::info!("ended");
            Ok(exit::OK)
        }
        Some(why) => Err(Told::new(format!("the node ended by itself: {why}")).code("MP0502").into()),
    }
}
