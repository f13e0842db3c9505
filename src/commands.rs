//! The commands: one module each, with `Args` (what clap reads) and `async fn run(args) -> anyhow::Result<ExitCode>`.
//!
//! Data goes to stdout, words to stderr. An error is a [`Told`](crate::exit::Told), which carries cause, hint, code and exit code.

pub mod alerts;
pub mod apply;
pub mod bench;
pub mod cloud;
pub mod completions;
pub mod config;
pub mod dead_letter;
pub mod demo;
pub mod device;
pub mod devices;
pub mod edge;
pub mod explain;
pub mod journal;
pub mod lake;
pub mod ledger;
pub mod members;
pub mod node;
pub mod query;
pub mod remote;
pub mod replay;
pub mod rollout;
pub mod rules;
pub mod secrets;
pub mod sim;
pub mod site;
pub mod sites;
pub mod sql;
pub mod table;
pub mod tap;
pub mod twin;
pub mod uplinks;
pub mod validate;
pub mod version;
pub mod windows;

use std::io::{IsTerminal, Write};

/// Whether stderr shows colours.
pub fn styled() -> bool {
    std::io::stderr().is_terminal() && crate::world::os::var("NO_COLOR").is_none()
}

/// Writes data to stdout.
///
/// # Errors
/// When whoever reads it is gone; the program then ends quietly.
pub fn out(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_ref())?;
    stdout.flush()?;
    Ok(())
}
