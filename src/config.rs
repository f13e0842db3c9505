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

use std::path::Path;

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
