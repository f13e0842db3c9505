//! The configuration: one typed TOML tree, read once at the start and passed by value.
//!
//! Text becomes the tree in five steps, and every step reports all that it finds, with line and column: the text is parsed (`tree`),
//! `--set` values are laid over it, the keys and types are compared with the JSON schema of [`Config`] (`schema`), serde makes the
//! struct, and what only the whole can tell is checked last (`meaning`). Reference page and schema are made from the same types.

mod meaning;
mod problem;
mod reference;
mod schema;
mod tree;

use std::path::{Path, PathBuf};

pub use millpond_actors::config::{Config, LogFormat, LogSettings};
pub use problem::{Problem, Problems};
pub use reference::{json_schema, reference_page};

use millpond_env::Env;

use crate::world::os;
use tree::{Source, Tree};

/// A configuration without errors, and what is odd about it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Problems,
}

/// Reads the file (none: all defaults) and lays the `--set` values over it, in their order.
///
/// # Errors
/// All problems of the file and of the `--set` values; warnings are among them.
pub fn load(env: &Env, file: Option<&Path>, sets: &[String]) -> Result<Loaded, Problems> {
    let text = match file {
        None => None,
        Some(path) => match os::read(path) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => return Err(Problems::unreadable(path, &error)),
        },
    };
    let name = file.map_or("defaults".to_owned(), |path| path.display().to_string());
    load_text(env, &name, text.as_deref().unwrap_or_default(), sets)
}

/// Like [`load`], on text that is called `name` in what is reported.
pub fn load_text(env: &Env, name: &str, text: &str, sets: &[String]) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let mut tree = Tree::new(Source { name: name.to_owned(), text: text.to_owned() }, &mut problems);
    for set in sets {
        tree.set(set, &mut problems);
    }
    read(env, tree, problems)
}

/// A text that holds a configuration, or a part of one, under the keys `within` (numbers, in arrays).
#[derive(Clone, Debug)]
pub struct Layer {
    pub name: String,
    pub text: String,
    pub within: Vec<String>,
}

/// Lays texts over each other, the last on top, and reads what comes of it; also returns that as it was written, without defaults.
///
/// # Errors
/// As of [`load`]; each problem is shown in the text that it comes from.
pub fn load_layers(env: &Env, layers: Vec<Layer>) -> Result<(Loaded, toml::Table), Problems> {
    let mut problems = Vec::new();
    let mut tree = Tree::new(Source { name: "defaults".to_owned(), text: String::new() }, &mut problems);
    for layer in layers {
        tree.lay(Source { name: layer.name, text: layer.text }, &layer.within, &mut problems);
    }
    let written = toml::Table::try_from(tree.root.to_json());
    let loaded = read(env, tree, problems)?;
    let unwritten = |error: toml::ser::Error| Problems {
        sources: Vec::new(),
        list: vec![Problem::error("MP0304", error.to_string())],
    };
    Ok((loaded, written.map_err(unwritten)?))
}

/// A rule, a window or the like, as it was written, without comments.
#[derive(Debug)]
pub struct Definition {
    /// The section that it stands in.
    pub kind: &'static str,
    pub name: String,
    pub text: String,
}

/// Reads files that hold nothing but definitions, in the shapes of a configuration, and judges them together.
///
/// # Errors
/// As of [`load`]; each problem is shown in the file that it comes from.
pub fn load_definitions(env: &Env, files: &[PathBuf]) -> Result<Vec<Definition>, Problems> {
    let mut problems = Vec::new();
    let mut tree = Tree { sources: Vec::new(), root: tree::Node { place: None, kind: tree::Kind::Table(Vec::new()) } };
    for path in files {
        match os::read(path) {
            Ok(bytes) => {
                let (name, text) = (path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned());
                tree.gather(Source { name, text }, &mut problems);
            }
            Err(error) => problems.extend(Problems::unreadable(path, &error).list),
        }
    }
    let kinds = millpond_proto::uplink::orders::KINDS;
    for entry in tree.root.entries().iter().filter(|entry| !kinds.contains(&entry.key.as_str())) {
        let message = format!("`{}` is of one node, and not rolled out to sites", entry.key);
        let hint = format!("what can be: {}", kinds.join(", "));
        problems.push(Problem::error("MP0302", message).at(entry.key_place.clone()).hint(Some(hint)));
    }
    let mut written = Vec::new();
    for kind in kinds {
        let items = tree.root.child(kind).and_then(|node| match &node.kind {
            tree::Kind::Array(items) => Some(items.iter()),
            _ => None,
        });
        for item in items.into_iter().flatten() {
            let json = item.to_json();
            let name = json["name"].as_str().unwrap_or_default().to_owned();
            let text = toml::Table::try_from(&json).and_then(|table| toml::to_string(&table));
            written.push(Definition { kind, name, text: text.unwrap_or_default() });
        }
    }
    // Odd things are about a node's doors, of which nothing is said here.
    read(env, tree, problems).map(|_| written)
}

/// Line and column, from 1, of a dotted key (`fault[2].node`) in a text, or of the nearest thing around it.
pub fn locate(text: &str, dotted: &str) -> Option<(usize, usize)> {
    let tree = Tree::new(Source { name: String::new(), text: text.to_owned() }, &mut Vec::new());
    let before = text.get(..tree.find(dotted)?.span.start)?;
    let line = before.rsplit('\n').next().unwrap_or_default();
    Some((1 + before.matches('\n').count(), 1 + line.chars().count()))
}

fn read(env: &Env, mut tree: Tree, mut problems: Vec<Problem>) -> Result<Loaded, Problems> {
    let mut config = None;
    if problems.is_empty() {
        schema::check(&json_schema(), &mut tree, &mut problems);
    }
    if problems.is_empty() {
        match serde_json::from_value::<Config>(tree.root.to_json()) {
            Ok(read) => {
                meaning::check(env, &read, &tree, &mut problems);
                config = Some(read);
            }
            Err(error) => problems.push(Problem::error("MP0304", error.to_string())),
        }
    }
    let problems = Problems { sources: tree.sources, list: problems };
    match config {
        Some(config) if problems.errors() == 0 => Ok(Loaded { config, warnings: problems }),
        _ => Err(problems),
    }
}

#[cfg(test)]
mod tests;
