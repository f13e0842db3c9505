//! What is wrong with a configuration, and how it is shown.

use std::{fmt, ops::Range, path::Path};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::tree::Source;

/// A range of bytes in one of the texts that the configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub source: usize,
    pub span: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

#[derive(Clone, Debug)]
pub struct Problem {
    pub severity: Severity,
    /// Its page in `docs/errors/`.
    pub code: &'static str,
    pub message: String,
    /// What stands below the marked text.
    pub label: Option<String>,
    pub place: Option<Place>,
    pub hint: Option<String>,
}

impl Problem {
    pub fn error(code: &'static str, message: impl Into<String>) -> Problem {
        Problem { severity: Severity::Error, code, message: message.into(), label: None, place: None, hint: None }
    }

    pub fn warning(code: &'static str, message: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..Problem::error(code, message) }
    }

    pub fn at(mut self, place: Option<Place>) -> Problem {
        self.place = place;
        self
    }

    pub fn label(mut self, label: impl Into<String>) -> Problem {
        self.label = Some(label.into());
        self
    }

    pub fn hint(mut self, hint: Option<String>) -> Problem {
        self.hint = hint;
        self
    }
}

/// All problems of a configuration, with the texts they point into.
#[derive(Debug)]
pub struct Problems {
    pub sources: Vec<Source>,
    pub list: Vec<Problem>,
}

impl Problems {
    pub fn unreadable(path: &Path, error: &std::io::Error) -> Problems {
        let problem = Problem::error("MP0308", format!("cannot read {}: {error}", path.display()))
            .hint(Some("the commented example is deploy/examples/edge.toml".to_owned()));
        Problems { sources: Vec::new(), list: vec![problem] }
    }

    pub fn errors(&self) -> usize {
        self.list.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    /// As rustc would show them, in the order of their places.
    pub fn render(&self, styled: bool) -> String {
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        let mut list: Vec<&Problem> = self.list.iter().collect();
        list.sort_by_key(|problem| problem.place.as_ref().map(|place| (place.source, place.span.start)));
        list.iter().map(|problem| self.render_one(problem, &renderer)).collect::<Vec<_>>().join("\n")
    }

    fn render_one(&self, problem: &Problem, renderer: &Renderer) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(problem.message.as_str()).id(problem.code);
        let mut group = title.elements(Vec::<Snippet<'_, annotate_snippets::Annotation<'_>>>::new());
        if let Some(place) = &problem.place {
            let source = &self.sources[place.source];
            let mark = AnnotationKind::Primary.span(place.span.clone()).label(problem.label.as_deref());
            group = group.element(Snippet::source(source.text.as_str()).path(source.name.as_str()).annotation(mark));
        }
        if let Some(hint) = &problem.hint {
            group = group.element(Level::HELP.with_name("hint").message(hint.as_str()));
        }
        renderer.render(&[group]).to_string()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}
