//! What is wrong with something a user wrote, told so that it can be found and mended.

use std::fmt;

/// One mistake in a specification. Validation collects all of them before it gives up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecProblem {
    /// Where it stands, as a dotted key: `rules[2].when.metric`.
    pub place: String,
    /// What is wrong, in a sentence without a full stop.
    pub message: String,
    /// What would be right, when that can be said.
    pub hint: Option<String>,
}

impl SpecProblem {
    pub fn new(place: impl Into<String>, message: impl Into<String>) -> SpecProblem {
        SpecProblem { place: place.into(), message: message.into(), hint: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> SpecProblem {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for SpecProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
}

/// The name among `known` that was probably meant by `name`.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

/// Whether `name` may name a rule, a window, a schema or a device type: letters, digits, `-` and `_`, up to 64 of them.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
}
