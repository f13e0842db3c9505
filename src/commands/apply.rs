//! `millpond apply`.

mod diff;

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use millpond_core::time::Span;
use serde_json::{Value, json};

use crate::{
    commands::{out, remote::Remote, styled},
    config,
    exit::{self, Failure, Told},
    world::{World, os},
};

/// Roll definitions out to the sites of a cloud, a canary first
///
/// The directory is the whole of what these sites get from the cloud: each `*.toml` in it holds [[schemas]], [[device_types]], [[windows]] and [[rules]]
/// as a configuration does. What an earlier apply gave and is not there any more is removed from the sites; what a site says itself
/// stays, but for things of the same kind and name.
///
/// One site gets them first, or the one or the share of --canary. It is watched for --watch; when it rejects them, starts again and again, says
/// nothing, or raises more alerts than --max-alert-rate, everything is as before, and `millpond rollout show` says why. Otherwise all get them.
///
/// A rule with `shadow = true` raises nothing: it is judged beside the rule of its name that was there before, and counted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond apply -f definitions --dry-run --data cloud-data
  millpond apply -f definitions --canary plant-7 --watch 30m --max-alert-rate 2/min --yes
  millpond apply -f definitions --tenant acme --sites 'eu-*,plant-9' --canary 5%
  millpond rollout show                             how far it is, and why it came back")]
pub struct Args {
    /// Directory with the definitions, or one file
    #[arg(short, long, value_name = "DIR")]
    file: PathBuf,
    /// Whose sites. Default: those of the user's tenant, or of `default`
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Which of them: names, with `*` for any run of characters
    #[arg(long, value_name = "PATTERN,…", value_delimiter = ',', default_value = "*")]
    sites: Vec<String>,
    /// Who gets it first: a site, or a share of those that are connected. Default: one site
    #[arg(long, value_name = "SITE|5%")]
    canary: Option<String>,
    /// How long the canaries are watched once they work with it
    #[arg(long, default_value = "10m", value_name = "SPAN")]
    watch: Span,
    /// How long a canary may say nothing
    #[arg(long, default_value = "5m", value_name = "SPAN")]
    patience: Span,
    /// Alerts that one canary may raise in a minute
    #[arg(long, value_name = "N/min", value_parser = rate)]
    max_alert_rate: Option<f64>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    remote: Remote,
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/min").unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        _ => Err("a number of alerts a minute, for example 5/min".to_owned()),
    }
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let unreadable = |error| {
        let told = Told::new(format!("cannot read {}", args.file.display())).failure(Failure::NoInput);
        told.hint("a directory with *.toml files").because(anyhow::Error::from(error))
    };
    let files =
        if args.file.is_dir() { os::files(&args.file, "toml").map_err(unreadable)? } else { vec![args.file.clone()] };
    if files.is_empty() {
        let told = Told::new(format!("there is no *.toml in {}", args.file.display())).failure(Failure::NoInput);
        return Err(told.hint("an empty file there says that the sites are to get nothing from the cloud").into());
    }
    let definitions = match config::load_definitions(&World::client(), &files) {
        Ok(definitions) => definitions,
        Err(problems) => {
            eprintln!("{}", problems.render(styled()));
            return Ok(ExitCode::from(Failure::BadConfig as u8));
        }
    };
    let texts = definitions.iter().map(|one| json!({ "kind": one.kind, "name": one.name, "text": one.text }));
    let mut wanted = json!({
        "tenant": args.tenant,
        "sites": args.sites,
        "texts": texts.collect::<Vec<_>>(),
        "canary": args.canary,
        "watch": args.watch.to_string(),
        "patience": args.patience.to_string(),
        "max_alert_rate": args.max_alert_rate,
        "dry_run": true,
    });
    let would = ask(&args.remote, &wanted).await?;
    let changes = diff::of(&would["before"], &would["texts"]);
    if args.remote.json {
        if args.dry_run || would["unchanged"] == true {
            out(format!("{would}\n"))?;
            return Ok(exit::OK);
        }
    } else {
        out(&changes)?;
    }
    let head = would["head"].as_str().unwrap_or_default();
    if would["unchanged"] == true {
        eprintln!("Nothing to do: rollout {} has brought head {head} to these sites.", would["rollout"]);
        return Ok(exit::OK);
    }
    let meant = would["meant"].as_array().map_or(0, Vec::len);
    if changes.is_empty() {
        eprintln!("The definitions are those of before; they go to other sites, or again.");
    }
    eprintln!(
        "Head {head} for {meant} site{} that {} known.",
        if meant == 1 { "" } else { "s" },
        if meant == 1 { "is" } else { "are" }
    );
    if args.dry_run {
        return Ok(exit::OK);
    }
    if !args.yes && !agreed()? {
        return Err(Told::new("nothing was rolled out").hint("say --yes").into());
    }
    wanted["dry_run"] = false.into();
    let answer = ask(&args.remote, &wanted).await?;
    if args.remote.json {
        out(format!("{answer}\n"))?;
    }
    eprintln!("Rollout {} has begun: `millpond rollout show {}`.", answer["rollout"], answer["rollout"]);
    Ok(exit::OK)
}

async fn ask(remote: &Remote, wanted: &Value) -> anyhow::Result<Value> {
    remote.ask("PUT", "/v1/cloud/heads", Some(wanted.to_string())).await
}

fn agreed() -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(false);
    }
    eprint!("Roll it out? [y/N] ");
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
