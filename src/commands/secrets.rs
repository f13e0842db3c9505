//! `millpond hash-password` and `millpond token`.

use std::{
    io::{IsTerminal, Read},
    process::ExitCode,
};

use millpond_gateway::auth;
use rand::Rng;

use crate::{commands::out, exit, exit::Told, world::World};

/// Hash a password for the configuration
///
/// The password is read from stdin, so that it is in no history and no list of processes. Prints the value of `password_hash`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond hash-password                  then type the password and press Enter
  millpond hash-password < password.txt")]
pub struct HashPassword {}

/// Make tokens to log in with
#[derive(Debug, clap::Args)]
pub struct Token {
    #[command(subcommand)]
    what: TokenCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TokenCommand {
    /// Make a new token: the token goes to stdout once, what the configuration needs to stderr
    New {
        /// Name of the user, who for a device is named like it
        name: String,
        /// device, operator or admin
        #[arg(long, default_value = "device")]
        role: String,
        /// Of a node of a cloud: the tenant that an operator or admin is bound to
        #[arg(long)]
        tenant: Option<String>,
    },
}

pub async fn hash_password(_: HashPassword) -> anyhow::Result<ExitCode> {
    let mut stdin = std::io::stdin();
    let mut text = String::new();
    if stdin.is_terminal() {
        eprintln!("Type the password (it is shown) and press Enter:");
        stdin.read_line(&mut text)?;
    } else {
        stdin.read_to_string(&mut text)?;
    }
    let password = text.trim_end_matches(['\r', '\n']);
    let mut salt = [0; 16];
    World::client().rng("salt of a password").fill_bytes(&mut salt);
    let hash = auth::hash_password(password.as_bytes(), salt).map_err(|error| {
        Told::new(error.to_string()).hint("give the password on stdin: millpond hash-password < FILE")
    })?;
    out(hash + "\n")?;
    Ok(exit::OK)
}

pub async fn token(args: Token) -> anyhow::Result<ExitCode> {
    let TokenCommand::New { name, role, tenant } = args.what;
    if !["device", "operator", "admin"].contains(&role.as_str()) {
        return Err(Told::new(format!("there is no role `{role}`")).hint("device, operator or admin").into());
    }
    let token = auth::new_token(&World::client());
    let tenant = tenant.map(|tenant| format!("tenant = {tenant:?}\n")).unwrap_or_default();
    eprintln!(
        "[[auth.users]]\nname = {name:?}\ntoken_hash = \"{}\"\nrole = \"{role}\"\n{tenant}",
        auth::hash_token(&token)
    );
    eprintln!("Put the lines above into the configuration, and the token below into the device; it is shown only now.");
    out(token + "\n")?;
    Ok(exit::OK)
}
