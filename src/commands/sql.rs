//! `millpond sql`.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::{
    commands::{
        remote::Remote,
        table::{self, show},
    },
    exit,
};

/// Ask a cloud in SQL
///
/// There is one table, `readings`, with a row for each value of each event of all sites, from the last second to the last year: `time`, `device`,
/// `metric`, `value` (numbers; truth values are 0 and 1), `text` (texts; bytes in hexadecimal digits), `quality` (good, uncertain or bad) and
/// `site`. Say which `time`, `device` and `metric` you want: then only their parts of the archive are read.
///
/// The cloud's node has to be built with `--features sql`. Functions are those of DataFusion: datafusion.apache.org/user-guide/sql
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond sql \"SELECT site, count(*) FROM readings GROUP BY site\"
  millpond sql \"SELECT date_bin(INTERVAL '1 hour', time) AS hour, max(value) FROM readings
                WHERE device = 'press-1' AND metric = 'temperature' AND time > now() - INTERVAL '1 day'
                GROUP BY hour ORDER BY hour\" --json")]
pub struct Args {
    /// The question
    #[arg(value_name = "SELECT")]
    sql: String,
    /// Rows at most: 10000 unless said, up to 100000
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Whose sites. Default: those of the user's tenant, or of `default`
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let question = json!({ "sql": args.sql, "limit": args.limit, "tenant": args.tenant });
    let answer = args.remote.post("/v1/sql", &question).await?;
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let names: Vec<String> = array(&answer["columns"]).iter().map(|column| show(&column["name"])).collect();
    let rows: Vec<Vec<Value>> = array(&answer["rows"]).iter().map(array).collect();
    if args.remote.json {
        let object = |row: Vec<Value>| Value::Object(names.iter().cloned().zip(row).collect::<Map<_, _>>());
        table::print_json(&rows.into_iter().map(object).collect::<Vec<_>>())?;
    } else {
        table::print_rows(&names, &rows)?;
    }
    if answer["truncated"] == true {
        eprintln!("hint: there are more rows; raise --limit, or group them");
    }
    Ok(exit::OK)
}
