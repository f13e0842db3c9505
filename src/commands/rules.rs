//! `millpond rules`.

use std::{path::PathBuf, process::ExitCode};

use millpond_gateway::client::http::escape;
use serde_json::{Value, json};

use crate::{
    commands::{
        out,
        remote::Remote,
        table::{self, Column},
    },
    exit::{self, Told},
    world::os,
};

/// List the rules that the site shares, or write them from a file
///
/// A rule is judged as one of the configuration before it is accepted, and then travels to every node of the site. The head is a hash of all
/// rules: nodes that show the same head have the same rules.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond rules list
  millpond rules apply rules.toml                   every [[rules]] of the file
  millpond rules remove too-hot")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show the rules of the site
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Write each [[rules]] of a configuration file; other rules stay
    Apply {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        remote: Remote,
    },
    /// Remove a rule
    Remove {
        rule: String,
        #[command(flatten)]
        remote: Remote,
    },
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::List { remote } => list(&remote).await?,
        What::Apply { file, remote } => {
            let bytes =
                os::read(&file).map_err(|error| Told::new(format!("cannot read {}: {error}", file.display())))?;
            let rules = rules_in(&String::from_utf8_lossy(&bytes))
                .map_err(|error| Told::new(format!("{}: {error}", file.display())).hint("see `millpond validate`"))?;
            let mut head = Value::Null;
            for (name, text) in &rules {
                let path = format!("/v1/site/texts/rules/{}", escape(name));
                head = remote.ask("PUT", &path, Some(text.clone())).await?["head"].clone();
                eprintln!("{name}: written");
            }
            out(format!("{}\n", json!({ "rules": rules.len(), "head": head })))?;
        }
        What::Remove { rule, remote } => {
            let answer = remote.ask("DELETE", &format!("/v1/site/texts/rules/{}", escape(&rule)), None).await?;
            out(format!("{answer}\n"))?;
        }
    }
    Ok(exit::OK)
}

async fn list(remote: &Remote) -> anyhow::Result<()> {
    let answer = remote.get("/v1/site/texts/rules").await?;
    if remote.json {
        return out(format!("{answer}\n"));
    }
    let rows: Vec<Value> = table::items(&answer).iter().map(row).collect();
    let columns = [
        Column("RULE", "name"),
        Column("TYPE", "rule.when.type"),
        Column("METRIC", "rule.when.metric"),
        Column("WINDOW", "rule.when.window"),
        Column("FOR", "rule.for"),
        Column("SEVERITY", "rule.severity"),
    ];
    table::print(&columns, &rows)?;
    eprintln!("head: {}", answer["head"].as_str().unwrap_or_default());
    Ok(())
}

fn row(text: &Value) -> Value {
    let source = text["text"].as_str().unwrap_or_default();
    let rule = serde_json::from_str(source).ok().or_else(|| toml::from_str::<Value>(source).ok());
    json!({ "name": text["name"], "rule": rule })
}

/// Name and text of each rule of a configuration.
fn rules_in(text: &str) -> Result<Vec<(String, String)>, String> {
    let table: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let rules = table.get("rules").and_then(toml::Value::as_array).ok_or("it has no [[rules]]")?;
    let named = rules.iter().enumerate().map(|(at, rule)| {
        let name = rule.get("name").and_then(toml::Value::as_str).ok_or(format!("rules[{at}] has no name"))?;
        Ok((name.to_owned(), toml::to_string(rule).map_err(|error| error.to_string())?))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_of_a_file_is_a_text() {
        let rules =
            rules_in("[[rules]]\nname = \"hot\"\nwhen = { type = \"threshold\" }\n[[rules]]\nname = \"cold\"\n");
        let rules = rules.expect("good");
        assert_eq!(rules.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["hot", "cold"]);
        assert!(rules[0].1.contains("type = \"threshold\""), "{}", rules[0].1);
        assert_eq!(row(&json!({"name": "hot", "text": rules[0].1}))["rule"]["when"]["type"], "threshold");
        assert!(rules_in("").is_err());
        assert!(rules_in("[[rules]]\nfor = 1").is_err());
    }
}
