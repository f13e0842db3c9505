//! `millpond journal`: looks into the data directory of a node that does not run.

mod export;

use std::{path::PathBuf, process::ExitCode};

use indicatif::{ProgressBar, ProgressStyle};
use millpond_actors::{
    STORE_FILE,
    upkeep::{self, Repair},
};
use millpond_env::Env;
use millpond_store::{OpenDevice, RepairError, inspect, verify};

use crate::{
    commands::out,
    exit::{self, Failure, Told},
    roles::edge::store_told,
    world::World,
};

/// Verify, inspect, repair or export the journal of a node that does not run
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond journal verify millpond-data
  millpond journal inspect millpond-data
  millpond journal export millpond-data --device press-1 > press-1.ndjson
  millpond journal repair millpond-data")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Read every record and check it; the exit code is 65 when something is damaged
    Verify(Place),
    /// Show identity, sizes and what was given up
    Inspect(Place),
    /// Write all sound records to a new journal and put it in the place of the damaged one, which is kept
    Repair(Place),
    /// Print records as JSON, one per line, in their order
    Export(export::Args),
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Data directory of the node
    #[arg(value_name = "DATA_DIR")]
    data: PathBuf,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Verify(place) => run_verify(place).await,
        What::Inspect(place) => run_inspect(place).await,
        What::Repair(place) => run_repair(place).await,
        What::Export(args) => export::run(args).await,
    }
}

/// The world around the data directory, which must hold a journal: nothing is created by looking.
fn world_of(data: &std::path::Path) -> anyhow::Result<Env> {
    if !data.join(STORE_FILE).is_file() {
        let told = Told::new(format!("there is no journal in {}", data.display())).failure(Failure::NoInput);
        return Err(told.hint(format!("name the data directory of a node: the one with {STORE_FILE} in it")).into());
    }
    Ok(World::new(data)?)
}

fn device(env: &Env, file: &str) -> OpenDevice {
    let (disk, file) = (env.disk.clone(), file.to_owned());
    Box::new(move || disk.open(&file))
}

/// Runs long work off the executor while a spinner on stderr says what is done.
async fn spin<T: Send + 'static>(
    env: &Env,
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let bar = ProgressBar::new_spinner().with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    let done = env.unblock(work).await;
    bar.finish_and_clear();
    done.ok_or_else(|| Told::new("this is a fault of the program: the work panicked").into())
}

fn unreadable(error: std::io::Error) -> anyhow::Error {
    store_told("cannot read the journal", millpond_store::OpenError::Device(error))
}

async fn run_verify(place: Place) -> anyhow::Result<ExitCode> {
    let env = world_of(&place.data)?;
    let open = device(&env, STORE_FILE);
    let report = spin(&env, "checking every record", move || verify(&open)).await?.map_err(unreadable)?;
    let mut text = String::new();
    if let Some(origin) = report.origin {
        text.push_str(&format!("origin     {origin}, incarnation {}\n", report.incarnation.0));
    }
    let (records, events) =
        report.usage.classes.iter().fold((0, 0), |(r, e), class| (r + class.records, e + class.events));
    text.push_str(&format!("records    {records} with {events} events, {} entries of state\n", report.entries));
    for (first, last) in &report.missing {
        text.push_str(&format!("missing    records {first} to {last}, without a receipt\n"));
    }
    for damage in &report.damage {
        text.push_str(&format!("damaged    {damage}\n"));
    }
    if report.values_in_ruins > 0 {
        text.push_str(&format!("readable   {} values, found by searching the file\n", report.values_in_ruins));
    }
    text.push_str(if report.is_sound() { "sound\n" } else { "not sound\n" });
    out(text)?;
    if report.is_sound() {
        return Ok(exit::OK);
    }
    let told = Told::new("the journal is damaged").code("MP0402").failure(Failure::BadInput);
    Err(told.hint(format!("copy the directory aside, then `millpond journal repair {}`", place.data.display())).into())
}

async fn run_inspect(place: Place) -> anyhow::Result<ExitCode> {
    let env = world_of(&place.data)?;
    let open = device(&env, STORE_FILE);
    let found = spin(&env, "opening the journal", move || inspect(&open)).await?;
    out(found.map_err(|error| store_told("cannot inspect the journal", error))?.to_string())?;
    Ok(exit::OK)
}

async fn run_repair(place: Place) -> anyhow::Result<ExitCode> {
    let env = world_of(&place.data)?;
    let (disk, now_ms) = (env.disk.clone(), env.wall().as_millis());
    let work = move || upkeep::repair_journal(&disk, now_ms);
    let done = spin(&env, "checking every record, and writing the sound ones to a new journal", work).await?;
    let Repair::Done { repaired, aside } = done.map_err(repair_told)? else {
        eprintln!("the journal is sound: there is nothing to repair");
        return Ok(exit::OK);
    };
    let records: u64 = repaired.usage.classes.iter().map(|class| class.records).sum();
    let mut text = format!(
        "origin     {}, incarnation {}\nrecords    {records} saved, {} entries of state\n",
        repaired.origin, repaired.incarnation.0, repaired.entries
    );
    for damage in &repaired.damage {
        text.push_str(&format!("damaged    {damage}\n"));
    }
    for lost in &repaired.lost {
        text.push_str(&format!(
            "lost       {} records between {} and {} ({})\n",
            lost.records,
            lost.first,
            lost.last,
            lost.class.name()
        ));
    }
    out(text)?;
    eprintln!("the damaged journal is kept as {}", place.data.join(aside).display());
    Ok(exit::OK)
}

fn repair_told(error: RepairError) -> anyhow::Error {
    let told = Told::new("the journal could not be repaired; it is as it was");
    match &error {
        RepairError::Source(cause) if cause.kind() == std::io::ErrorKind::ResourceBusy => {
            told.code("MP0403").failure(Failure::InUse).hint("stop the node first")
        }
        RepairError::TooNew { .. } => told.code("MP0404").failure(Failure::BadInput),
        RepairError::NothingFound | RepairError::Copy => told.code("MP0402").failure(Failure::BadInput),
        RepairError::Source(_) | RepairError::Target { .. } | RepairError::TargetInUse => told.code("MP0405"),
    }
    .because(error)
    .into()
}
