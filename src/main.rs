//! Millpond: an edge data mesh in one program.

mod bench;
mod cli;
mod commands;
mod config;
mod demo;
mod exit;
mod roles;
mod world;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = match world::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the operating system gives no threads: {error}");
            return exit::FAILED;
        }
    };
    let outcome = runtime.block_on(cli.run());
    // What still blocks (a name being looked up, a read of a terminal) is not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}
