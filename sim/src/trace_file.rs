//! A run that broke a promise, as a file: all that is needed to see it again, with the same program or with one that is said to be
//! better. It is TOML, so that it can be read, cut down and changed by hand.

use serde::{Deserialize, Serialize};

use crate::{
    promise::Broken,
    rehearsal::Options,
    report::Report,
    scenario::{BadScenario, Injection, Scenario},
};

/// The format that this program writes and reads.
pub const FORMAT: u32 = 1;

/// Scenario, seed, and each fault as it was drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceFile {
    pub format: u32,
    /// Version of the program that wrote it.
    pub program: String,
    pub seed: u64,
    /// Of the run, in hexadecimal.
    pub hash: String,
    pub broken: Vec<Broken>,
    /// Complete: the configurations of nodes stand in place.
    pub scenario: Scenario,
    /// In the order of time.
    #[serde(rename = "injection", default)]
    pub injections: Vec<Injection>,
}

/// Why a trace file cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadTrace {
    /// With the place in the text.
    #[error("{0}")]
    Unreadable(String),
    #[error("it has format {0}, and this program reads format {FORMAT}")]
    Format(i64),
    #[error(transparent)]
    Scenario(#[from] BadScenario),
}

impl TraceFile {
    pub fn new(program: &str, report: &Report, scenario: Scenario, injections: Vec<Injection>) -> TraceFile {
        let (program, hash) = (program.to_owned(), report.hash.clone());
        TraceFile {
            format: FORMAT,
            program,
            seed: report.seed,
            hash,
            broken: report.broken.clone(),
            scenario,
            injections,
        }
    }

    /// # Errors
    /// When it is no trace file, or one of another format.
    pub fn parse(text: &str) -> Result<TraceFile, BadTrace> {
        let unreadable = |error: toml::de::Error| BadTrace::Unreadable(error.to_string());
        let table: toml::Table = toml::from_str(text).map_err(unreadable)?;
        if let Some(format) = table.get("format").and_then(toml::Value::as_integer)
            && format != i64::from(FORMAT)
        {
            return Err(BadTrace::Format(format));
        }
        let file: TraceFile = toml::from_str(text).map_err(unreadable)?;
        file.scenario.check()?;
        Ok(file)
    }

    /// # Errors
    /// When a number in it is beyond what TOML can carry (a seed of 2⁶³ or more).
    pub fn render(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// For a run with exactly these faults.
    pub fn options(&self) -> Options {
        Options { seed: self.seed, injections: Some(self.injections.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        promise::Promise,
        scenario::{SHIPPED, timeline},
        world::World,
    };

    fn file(text: &str) -> TraceFile {
        let scenario = Scenario::parse(text).unwrap();
        let injections = timeline(&scenario, &mut World::new(3, 0.0).core().rng("faults"));
        let broken = vec![
            Broken {
                promise: Some(Promise::NothingLost),
                node: "edge".into(),
                detail: "one \"reading\"\nis gone".into(),
            },
            Broken { promise: None, node: String::new(), detail: "a panic".into() },
        ];
        TraceFile { format: FORMAT, program: "1".into(), seed: 3, hash: "00ff".into(), broken, scenario, injections }
    }

    #[test]
    fn every_shipped_scenario_survives_the_way_through_a_file() {
        for shipped in SHIPPED {
            let file = file(shipped.text);
            let text = file.render().unwrap();
            assert_eq!(TraceFile::parse(&text).unwrap(), file, "{text}");
        }
    }

    #[test]
    fn a_file_of_another_format_or_with_an_impossible_scenario_is_refused() {
        let text = file(SHIPPED[1].text).render().unwrap();
        let later = text.replacen("format = 1", "format = 2\nnews = true", 1);
        assert_eq!(TraceFile::parse(&later), Err(BadTrace::Format(2)));
        let unknown = text.replacen("format = 1", "format = 1\nnews = true", 1);
        assert!(matches!(TraceFile::parse(&unknown), Err(BadTrace::Unreadable(why)) if why.contains("news")));
        let nobody = text.replacen("name = \"edge\"", "name = \"else\"", 1);
        assert!(matches!(TraceFile::parse(&nobody), Err(BadTrace::Scenario(BadScenario::Wrong { .. }))));
    }
}
