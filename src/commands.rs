//! The commands: one module each, with `Args` (what clap reads) and `async fn run(args) -> anyhow::Result<ExitCode>`.
//! Data goes to stdout, words to stderr. An error is printed with its chain of causes; a [`Hint`] in the chain becomes a `hint:` line.

use std::fmt;

/// What the user can do about an error; attach it with `.context(Hint(…))` or [`WithHint::hint`].
#[derive(Debug)]
pub struct Hint(pub String);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub trait WithHint<T> {
    /// Adds a hint to an error: a command to run or a thing to change.
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> WithHint<T> for Result<T, E> {
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| error.into().context(Hint(hint.into())))
    }
}
