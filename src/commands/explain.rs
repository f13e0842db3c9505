//! `millpond explain`.

mod pages;

use std::process::ExitCode;

use millpond_core::problem::did_you_mean;

use crate::{commands::out, exit, exit::Told};

/// Tell what a code such as MP0103 means, what is safe, and what to do
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond explain MP0103
  millpond explain --list")]
pub struct Args {
    /// The code, as in messages, dead letters and answers over HTTP
    #[arg(required_unless_present = "list")]
    code: Option<String>,
    /// Show all codes
    #[arg(long, conflicts_with = "code")]
    list: bool,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Some(code) = args.code else {
        let titles = pages::PAGES.iter().filter_map(|(_, page)| page.lines().next()?.strip_prefix("# "));
        out(titles.map(|title| format!("{title}\n")).collect::<String>())?;
        return Ok(exit::OK);
    };
    let code = code.to_ascii_uppercase();
    match pages::PAGES.iter().find(|(known, _)| *known == code) {
        Some((_, page)) => out(page)?,
        None => {
            let meant = did_you_mean(&code, pages::PAGES.iter().map(|(known, _)| *known)).unwrap_or_default();
            let told = Told::new(format!("there is no code {code}"));
            return Err(told.hint(format!("{meant} `millpond explain --list` shows all").trim()).into());
        }
    }
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::pages::PAGES;

    #[test]
    fn pages_are_in_order_and_say_what_is_safe_and_what_to_do() {
        assert!(PAGES.is_sorted_by_key(|(code, _)| *code));
        for (code, page) in PAGES {
            assert!(page.starts_with(&format!("# {code}: ")), "{code}");
            for heading in ["\n## What happened\n", "\n## What is safe\n", "\n## What to do\n"] {
                assert!(page.contains(heading), "{code} lacks {heading:?}");
            }
        }
    }

    #[test]
    fn every_code_in_the_code_has_a_page_and_every_page_its_code() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut used = BTreeSet::new();
        for dir in ["src", "actors"] {
            collect(&root.join(dir), &mut used);
        }
        let pages: BTreeSet<String> = PAGES.iter().map(|(code, _)| (*code).to_owned()).collect();
        assert_eq!(used.difference(&pages).collect::<Vec<_>>(), Vec::<&String>::new(), "codes without a page");
        assert_eq!(pages.difference(&used).collect::<Vec<_>>(), Vec::<&String>::new(), "pages that no code leads to");
    }

    #[test]
    fn every_file_in_docs_errors_is_in_the_program() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors");
        let files: BTreeSet<String> = list(&dir)
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_str()?.strip_suffix(".md")?.to_owned()))
            .filter(|name| name.starts_with("MP"))
            .collect();
        let pages: BTreeSet<String> = PAGES.iter().map(|(code, _)| (*code).to_owned()).collect();
        assert_eq!(files, pages);
    }

    /// Codes in string literals of the sources below `dir`; comments, tests and the list of pages do not count.
    fn collect(dir: &Path, used: &mut BTreeSet<String>) {
        for path in list(dir) {
            let is_test = path.ends_with("tests.rs") || path.ends_with("pages.rs") || path.ends_with("explain.rs");
            if path.is_dir() {
                collect(&path, used);
            } else if path.extension().is_some_and(|ext| ext == "rs") && !is_test {
                let text = String::from_utf8(crate::world::os::read(&path).unwrap()).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                for (at, _) in code.match_indices("\"MP0") {
                    let word = code[at + 1..].split('"').next().unwrap_or_default();
                    if word.len() == 6 {
                        used.insert(word.to_owned());
                    }
                }
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test looks at the repository")]
    fn list(dir: &Path) -> Vec<std::path::PathBuf> {
        let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }
}
