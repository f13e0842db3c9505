//! How the program ends: exit codes (after `sysexits.h`) that scripts may rely on, and how an error is shown.

use std::{fmt, io, process::ExitCode};

pub const OK: ExitCode = ExitCode::SUCCESS;
pub const FAILED: ExitCode = ExitCode::FAILURE;

/// What kind of failure it was; in the chain of an error it decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Failure {
    /// Input that cannot be used: a bad row, a damaged journal.
    BadInput = 65,
    /// A file that is not there or cannot be read.
    NoInput = 66,
    /// The node cannot be reached, or is not ready.
    Unavailable = 69,
    /// Another process uses the data directory.
    InUse = 75,
    /// The login was refused or does not suffice.
    Refused = 77,
    /// The configuration has errors.
    BadConfig = 78,
}

/// The list for `--help`.
pub const CODES_HELP: &str = "Exit codes:
  0   done
  1   failed for another reason than those below
  2   wrong use of the command line
  65  input that cannot be used (a bad row, a damaged journal)
  66  a file that is not there or cannot be read
  69  the node cannot be reached or is not ready
  75  another process uses the data directory
  77  the login was refused
  78  the configuration has errors";

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::BadInput => "the input cannot be used",
            Failure::NoInput => "the file cannot be read",
            Failure::Unavailable => "the node cannot be reached",
            Failure::InUse => "the data directory is in use",
            Failure::Refused => "the login was refused",
            Failure::BadConfig => "the configuration has errors",
        })
    }
}

/// An error for the user: cause, what to do about it, page in `docs/errors/`, and the exit code. What led to it is its source.
#[derive(Debug)]
pub struct Told {
    message: String,
    hints: Vec<String>,
    code: Option<&'static str>,
    failure: Option<Failure>,
    source: Option<anyhow::Error>,
}

impl Told {
    pub fn new(message: impl Into<String>) -> Told {
        Told { message: message.into(), hints: Vec::new(), code: None, failure: None, source: None }
    }

    /// A command to run or a thing to change.
    pub fn hint(mut self, hint: impl Into<String>) -> Told {
        self.hints.push(hint.into());
        self
    }

    pub fn code(mut self, code: &'static str) -> Told {
        self.code = Some(code);
        self
    }

    pub fn failure(mut self, failure: Failure) -> Told {
        self.failure = Some(failure);
        self
    }

    pub fn because(mut self, source: impl Into<anyhow::Error>) -> Told {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Told {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref())
    }
}

/// Shows an error on stderr and says how the program ends.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        // Whoever reads our output has seen enough, as `head` does.
        return OK;
    }
    eprint!("{}", render(error));
    let failure = error.chain().find_map(|cause| cause.downcast_ref::<Told>().and_then(|told| told.failure));
    failure.map_or(FAILED, |failure| ExitCode::from(failure as u8))
}

fn render(error: &anyhow::Error) -> String {
    use fmt::Write;
    let told = || error.chain().filter_map(|cause| cause.downcast_ref::<Told>());
    let mut text = String::from("error");
    if let Some(code) = told().find_map(|told| told.code) {
        let _ = write!(text, "[{code}]");
    }
    let _ = writeln!(text, ": {error}");
    for cause in error.chain().skip(1) {
        let _ = writeln!(text, "  caused by: {cause}");
    }
    for hint in told().flat_map(|told| &told.hints) {
        let _ = writeln!(text, "hint: {hint}");
    }
    if let Some(code) = told().find_map(|told| told.code) {
        let _ = writeln!(text, "hint: `millpond explain {code}` tells more");
    }
    text
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_its_causes_then_its_hints() {
        let error = anyhow::Error::from(
            Told::new("cannot open the journal")
                .hint("stop the other node")
                .code("MP0403")
                .failure(Failure::InUse)
                .because(io::Error::other("locked")),
        );
        let expected = "error[MP0403]: cannot open the journal\n  caused by: locked\nhint: stop the other node\nhint: `millpond explain MP0403` tells more\n";
        assert_eq!(render(&error), expected);
    }

    #[test]
    fn every_failure_is_in_the_help() {
        for failure in [
            Failure::BadInput,
            Failure::NoInput,
            Failure::Unavailable,
            Failure::InUse,
            Failure::Refused,
            Failure::BadConfig,
        ] {
            assert!(CODES_HELP.contains(&format!("\n  {}  ", failure as u8)), "{failure}");
        }
    }
}
