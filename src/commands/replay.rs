//! `millpond replay`: a recorded file through a window in event time.

mod csv;

use std::{
    io::{BufReader, BufWriter, Read, Write},
    path::PathBuf,
    process::ExitCode,
};

use millpond_core::{replay::Replay, time::Span};

use crate::{
    exit::{self, Failure, Told},
    world::os,
};
use csv::{Columns, Row, Rows};

/// Run a recorded CSV file through a window in event time
///
/// One watermark serves the whole input. Prints `W,key,start_ms,end_ms,count,sum,min,max` for each pane that fires, and
/// `L,key,event_time_ms,value` for each event that came too late. Rows are taken in their order; a row that cannot be read ends the
/// replay with its line number: nothing is skipped silently.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Columns are named by position: --columns key,event_time_ms,value for a file whose first column is the key. `time` may stand for
`event_time_ms`: RFC 3339 or `2014-02-14 14:30:00`, without an offset UTC. `-` passes a column over; without a key column everything has the key `all`.
A first row whose time is not a time is taken for the header.

Examples:
  millpond replay in.csv --columns key,event_time_ms,value --size 10s --bound 2s --lateness 15s
  millpond replay in.csv --columns key,event_time_ms,value --size 10s --slide 2500ms
  millpond replay machine.csv --columns time,value --size 1h"
)]
pub struct Args {
    /// The file; `-` reads stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What stands in the columns, from the left: key, event_time_ms or time, value, or - for others
    #[arg(long, value_name = "NAMES", default_value = "key,event_time_ms,value")]
    columns: String,
    /// Length of the windows
    #[arg(long, value_name = "DURATION")]
    size: Span,
    /// Distance between the starts of sliding windows; tumbling without it
    #[arg(long, value_name = "DURATION")]
    slide: Option<Span>,
    /// How far out of order events may come
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    bound: Span,
    /// How long after its end a window still takes late events
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    lateness: Span,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let columns = Columns::parse(&args.columns)?;
    let replay = Replay::new(args.size, args.slide, args.bound, args.lateness).map_err(|problems| {
        let all: Vec<String> = problems.iter().map(|p| format!("--{}: {}", p.place, p.message)).collect();
        let told = Told::new(all.join("; "));
        problems.into_iter().filter_map(|problem| problem.hint).fold(told, Told::hint)
    })?;
    let name = args.file.display().to_string();
    let input: Box<dyn Read> = if name == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(
            os::open(&args.file)
                .map_err(|error| Told::new(format!("cannot open {name}")).failure(Failure::NoInput).because(error))?,
        )
    };
    let rows = Rows::new(name, BufReader::new(input), columns);
    through(replay, rows, BufWriter::new(std::io::stdout().lock()))?;
    Ok(exit::OK)
}

/// Lines that fired before a bad row are printed.
fn through(mut replay: Replay, rows: Rows<impl std::io::BufRead>, mut out: impl Write) -> anyhow::Result<()> {
    let mut written = Ok(());
    for row in rows {
        let Row { key, time, value } = match row {
            Ok(row) => row,
            Err(error) => {
                out.flush()?;
                return Err(error);
            }
        };
        replay.push(&key, time, value, &mut |line| {
            if written.is_ok() {
                written = writeln!(out, "{line}");
            }
        });
        written?;
        written = Ok(());
    }
    replay.finish(&mut |line| {
        if written.is_ok() {
            written = writeln!(out, "{line}");
        }
    });
    written?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replayed(input: &str, columns: &str) -> anyhow::Result<Vec<String>> {
        let span = |text: &str| text.parse::<Span>().unwrap();
        let replay = Replay::new(span("10s"), None, span("2s"), span("0s")).unwrap();
        let rows = Rows::new("in.csv".into(), input.as_bytes(), Columns::parse(columns)?);
        let mut out = Vec::new();
        through(replay, rows, &mut out)?;
        Ok(String::from_utf8(out).unwrap().lines().map(str::to_owned).collect())
    }

    #[test]
    fn a_file_goes_through_a_window() {
        let lines = replayed("a,1000,1\na,2000,2.5\na,30000,4\na,3000,9\n", "key,event_time_ms,value").unwrap();
        assert_eq!(lines, ["W,a,0,10000,2,3.5,1.0,2.5", "L,a,3000,9.0", "W,a,30000,40000,1,4.0,4.0,4.0"]);
    }

    #[test]
    fn a_header_times_in_words_and_other_columns_are_understood() {
        let input = "timestamp,note,value\r\n2014-02-14 14:30:00,\"x, \"\"y\"\"\",80\r\n2014-02-14T14:30:01Z,,81\r\n";
        let lines = replayed(input, "time,-,value").unwrap();
        assert_eq!(lines, ["W,all,1392388200000,1392388210000,2,161.0,80.0,81.0"]);
    }

    #[test]
    fn a_bad_row_ends_the_replay_with_its_line() {
        let check = |input: &str, line: usize, what: &str| {
            let error = replayed(input, "key,event_time_ms,value").unwrap_err().to_string();
            assert!(error.starts_with(&format!("in.csv:{line}: ")) && error.contains(what), "{error}");
        };
        check("key,t,v\na,1000,1\na,soon,1\n", 3, "soon");
        check("a,1000,1\na,2000,much\n", 2, "much");
        check("a,1000,1\na,2000\n", 2, "2 columns");
        check("a,1000,1\n\"a,2000,1\n", 2, "quote");
        check("a,1000,1\na,1000,\n", 2, "value");
    }
}
