//! From what a user names to a plan: the scenario's text, what is laid over it, and the configurations of its nodes, read as
//! `millpond edge` reads them. Every error names the file, line and column.

use std::path::{Path, PathBuf};

use millpond_core::problem::did_you_mean;
use millpond_env::Env;
use millpond_sim::{
    rehearsal::Plan,
    scenario::{BadScenario, SHIPPED, Scenario, Shipped},
    trace_file::{BadTrace, TraceFile},
};

use crate::{
    commands::styled,
    config::{self, Layer},
    exit::{Failure, Told},
    world::os,
};

/// A text with the name under which problems speak of it.
struct Text {
    name: String,
    text: String,
    /// What file names in it are relative to.
    folder: PathBuf,
}

/// A scenario that came with the program.
///
/// # Errors
/// When there is none of that name; says which there are.
pub fn shipped(name: &str) -> anyhow::Result<&'static Shipped> {
    millpond_sim::scenario::shipped(name).ok_or_else(|| {
        let meant = did_you_mean(name, SHIPPED.iter().map(|scenario| scenario.name));
        let told = Told::new(format!("there is no scenario `{name}`")).failure(Failure::NoInput);
        let names: Vec<&str> = SHIPPED.iter().map(|scenario| scenario.name).collect();
        let told = meant.into_iter().fold(told, Told::hint);
        told.hint(format!("there are {}; a path to a TOML file ends with .toml", names.join(", "))).into()
    })
}

/// Reads a scenario by its name or from its file.
///
/// # Errors
/// What is wrong with it, with its configurations, or with what was to be laid over it.
pub fn plan(env: &Env, scenario: &str, configs: &[String], sets: &[String]) -> anyhow::Result<Plan> {
    let mut text = text_of(scenario)?;
    let mut read = parse(&text)?;
    if !sets.is_empty() {
        text = with_sets(text, sets)?;
        read = parse(&text)?;
    }
    let named = named_configs(&read, configs)?;
    let layers = |at: usize, scenario: &Scenario| match &named[at] {
        Some(path) => Ok(vec![file_layer(path)?]),
        None => {
            let file = scenario.nodes[at].config_file.as_ref().map(|file| text.folder.join(file));
            let mut layers: Vec<Layer> = file.iter().map(|path| file_layer(path)).collect::<Result<_, _>>()?;
            layers.push(place_layer(&text, &[], at));
            Ok(layers)
        }
    };
    configure(env, read, layers)
}

/// Reads a trace file and makes the plan of its run.
///
/// # Errors
/// When it cannot be read, or is not what this program can play.
pub fn trace(env: &Env, path: &Path) -> anyhow::Result<(TraceFile, Plan)> {
    let text = read_text(path)?;
    let file = TraceFile::parse(&text.text).map_err(|error| {
        let why = match error {
            BadTrace::Scenario(error) => return told(&text, "scenario.", error),
            BadTrace::Unreadable(why) => why,
            BadTrace::Format(_) => error.to_string(),
        };
        Told::new(format!("{} is no trace of a run: {}", text.name, why.trim_end())).failure(Failure::BadInput)
    })?;
    let layers = |at: usize, _: &Scenario| Ok(vec![place_layer(&text, &["scenario"], at)]);
    let plan = configure(env, file.scenario.clone(), layers)?;
    Ok((file, plan))
}

/// A scenario's name as a part of a file's.
pub fn file_name(scenario: &str) -> String {
    scenario.chars().map(|c| if c.is_alphanumeric() || "_-".contains(c) { c } else { '_' }).collect()
}

fn text_of(scenario: &str) -> anyhow::Result<Text> {
    let path = Path::new(scenario);
    if scenario.ends_with(".toml") || scenario.contains('/') || path.is_file() {
        return read_text(path);
    }
    let shipped = shipped(scenario)?;
    Ok(Text { name: shipped.name.to_owned(), text: shipped.text.to_owned(), folder: PathBuf::new() })
}

fn read_text(path: &Path) -> anyhow::Result<Text> {
    let name = path.display().to_string();
    let bytes = os::read(path)
        .map_err(|error| Told::new(format!("cannot read {name}")).failure(Failure::NoInput).because(error))?;
    let text = String::from_utf8(bytes)
        .map_err(|error| Told::new(format!("{name} is not text")).failure(Failure::BadInput).because(error))?;
    Ok(Text { name, text, folder: path.parent().map(Path::to_path_buf).unwrap_or_default() })
}

fn parse(text: &Text) -> anyhow::Result<Scenario> {
    Scenario::parse(&text.text).map_err(|error| told(text, "", error).into())
}

/// `prefix` is what stands before the keys of the scenario in the text.
fn told(text: &Text, prefix: &str, error: BadScenario) -> Told {
    let name = &text.name;
    match error {
        BadScenario::Unreadable(why) => {
            let told = Told::new(format!("{name}: {}", why.trim_end())).failure(Failure::BadInput);
            unknown_key(&why).into_iter().fold(told, Told::hint)
        }
        BadScenario::Wrong { place, message } => {
            let at = config::locate(&text.text, &format!("{prefix}{place}"));
            let at = at.map_or(String::new(), |(line, column)| format!("{line}:{column}: "));
            Told::new(format!("{name}:{at}`{place}`: {message}")).failure(Failure::BadInput)
        }
    }
}

/// "unknown field `a`, expected one of `b`, `c`".
fn unknown_key(why: &str) -> Option<String> {
    let from = why.find("unknown field `").or_else(|| why.find("unknown variant `"))?;
    let mut words = why[from..].split('`').skip(1).step_by(2);
    let unknown = words.next()?;
    did_you_mean(unknown, words)
}

/// Lays `key.path=value` over a scenario. Places in it are lost by that, so problems of the scenario itself are looked for before.
fn with_sets(text: Text, sets: &[String]) -> anyhow::Result<Text> {
    let mut table: toml::Table = toml::from_str(&text.text)?;
    for set in sets {
        let bad = |why: &str| Told::new(format!("--set {set}: {why}")).hint("for example --set duration=10m");
        let (path, value) = set.split_once('=').ok_or_else(|| bad("no `=` in it"))?;
        // What is not TOML is text, so that lengths of time need no quotes.
        let value = toml::from_str::<toml::Table>(&format!("value = {value}"))
            .ok()
            .and_then(|mut read| read.remove("value"))
            .unwrap_or_else(|| toml::Value::String(value.to_owned()));
        let keys: Vec<&str> = path.split('.').map(str::trim).collect();
        put(&mut table, &keys, value).ok_or_else(|| bad("there is nothing under this key that can hold it"))?;
    }
    Ok(Text { name: format!("{} with --set", text.name), text: toml::to_string_pretty(&table)?, folder: text.folder })
}

fn put(table: &mut toml::Table, keys: &[&str], value: toml::Value) -> Option<()> {
    let (key, rest) = keys.split_first()?;
    if rest.is_empty() {
        table.insert((*key).to_owned(), value);
        return Some(());
    }
    match table.entry(*key).or_insert_with(|| toml::Value::Table(toml::Table::new())) {
        toml::Value::Table(inner) => put(inner, rest, value),
        toml::Value::Array(items) => {
            let (index, rest) = rest.split_first()?;
            let item = items.get_mut(index.parse::<usize>().ok()?)?;
            if rest.is_empty() {
                *item = value;
                return Some(());
            }
            put(item.as_table_mut()?, rest, value)
        }
        _ => None,
    }
}

/// The files of `--config`, by node: `NODE=FILE`, or `FILE` for all nodes that the scenario gives none.
fn named_configs(scenario: &Scenario, configs: &[String]) -> anyhow::Result<Vec<Option<PathBuf>>> {
    let mut named = vec![None; scenario.nodes.len()];
    let names = || scenario.nodes.iter().map(|node| node.name.as_str());
    for config in configs {
        match config.split_once('=').filter(|(node, _)| !node.contains('/')) {
            Some((node, file)) => {
                let at = names().position(|name| name == node).ok_or_else(|| {
                    let told = Told::new(format!("--config {config}: there is no node `{node}` in the scenario"));
                    did_you_mean(node, names()).into_iter().fold(told, Told::hint)
                })?;
                named[at] = Some(PathBuf::from(file));
            }
            None => {
                let bare = |at: &usize| {
                    let node = &scenario.nodes[*at];
                    node.config_file.is_none() && node.config.is_empty() && named[*at].is_none()
                };
                let bare: Vec<usize> = (0..scenario.nodes.len()).filter(bare).collect();
                if bare.is_empty() {
                    let told = Told::new(format!("--config {config}: the scenario configures all of its nodes itself"));
                    let node = &scenario.nodes[0].name;
                    return Err(told.hint(format!("--config {node}={config} takes the file instead")).into());
                }
                bare.into_iter().for_each(|at| named[at] = Some(PathBuf::from(config)));
            }
        }
    }
    Ok(named)
}

fn file_layer(path: &Path) -> anyhow::Result<Layer> {
    let Text { name, text, .. } = read_text(path)?;
    Ok(Layer { name, text, within: Vec::new() })
}

fn place_layer(text: &Text, prefix: &[&str], at: usize) -> Layer {
    let keys = prefix.iter().map(|key| (*key).to_owned());
    let within = keys.chain(["node".to_owned(), at.to_string(), "config".to_owned()]);
    Layer { name: text.name.clone(), text: text.text.clone(), within: within.collect() }
}

/// Reads each node's configuration from its layers, and writes it into the scenario in place.
fn configure(
    env: &Env,
    mut scenario: Scenario,
    layers: impl Fn(usize, &Scenario) -> anyhow::Result<Vec<Layer>>,
) -> anyhow::Result<Plan> {
    let mut configs = Vec::new();
    for at in 0..scenario.nodes.len() {
        let (loaded, written) = config::load_layers(env, layers(at, &scenario)?).map_err(|problems| {
            eprintln!("{}\n", problems.render(styled()));
            let node = &scenario.nodes[at].name;
            Told::new(format!("the configuration of node `{node}` has errors")).failure(Failure::BadConfig)
        })?;
        let node = &mut scenario.nodes[at];
        node.config_file = None;
        node.config = written;
        configs.push(loaded.config);
    }
    Ok(Plan { scenario, configs })
}
