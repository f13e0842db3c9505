//! What can be wrong with a window definition.

use super::{Emit, WindowKind, WindowSpec, grid};
use crate::{
    limits::{METRIC_NAME_BYTES_MAX, METRICS_PER_EVENT_MAX, WINDOW_PARTS_MAX, WINDOW_QUANTILES_MAX},
    problem::{SpecProblem, did_you_mean, is_name},
    time::Span,
};

const LENGTH_MIN: Span = Span::from_millis(1);
/// Windows that one event falls into, when each of them is said at every update.
const UPDATED_PANES_MAX: i64 = 100;
const LENGTH_MAX: Span = Span::from_secs(366 * 86_400);

impl WindowSpec {
    /// Everything that is wrong with the definition; places are keys of the definition, such as `size`. The filter is for
    /// [`Expr`](crate::expr) to judge, and the names of device types are checked by [`problems_with`](Self::problems_with).
    pub fn problems(&self) -> Vec<SpecProblem> {
        let mut problems = Vec::new();
        if !is_name(&self.name) {
            let message = format!("`{}` cannot name a window", self.name);
            problems.push(SpecProblem::new("name", message).hint("use 1 to 64 letters, digits, `-` and `_`"));
        }
        self.check_lengths(&mut problems);
        self.check_waits(&mut problems);
        self.check_metrics(&mut problems);
        if problems.is_empty() {
            self.check_slices(&mut problems);
        }
        problems
    }

    /// [`problems`](Self::problems), and device types that do not exist.
    pub fn problems_with(&self, types: &[String]) -> Vec<SpecProblem> {
        let mut problems = self.problems();
        for (at, name) in self.device_types.iter().enumerate().filter(|(_, name)| !types.contains(name)) {
            let problem = SpecProblem::new(format!("device_types[{at}]"), format!("there is no device type `{name}`"));
            let meant = did_you_mean(name, types.iter().map(String::as_str));
            problems.push(SpecProblem { hint: meant, ..problem });
        }
        problems
    }

    fn check_lengths(&self, problems: &mut Vec<SpecProblem>) {
        let session = self.kind == WindowKind::Session;
        check_length("size", self.size, !session, problems);
        check_length("slide", self.slide, self.kind == WindowKind::Sliding, problems);
        check_length("gap", self.gap, session, problems);
        if let (WindowKind::Sliding, Some(size), Some(slide)) = (self.kind, self.size, self.slide)
            && slide > size
        {
            let problem =
                SpecProblem::new("slide", format!("a slide of {slide} leaves gaps between windows of {size}"));
            problems.push(problem.hint("the slide is at most the size"));
        }
    }

    fn check_waits(&self, problems: &mut Vec<SpecProblem>) {
        for (place, span) in [("bound", self.bound), ("lateness", self.lateness)] {
            if span < Span::ZERO || span > LENGTH_MAX {
                problems.push(SpecProblem::new(place, format!("{span} is not between 0s and 366d")));
            }
        }
        if self.idle_after < LENGTH_MIN {
            problems.push(SpecProblem::new("idle_after", format!("{} is less than 1ms", self.idle_after)));
        }
    }

    fn check_metrics(&self, problems: &mut Vec<SpecProblem>) {
        if self.metrics.len() > METRICS_PER_EVENT_MAX {
            let message = format!("{} metrics are more than {METRICS_PER_EVENT_MAX}", self.metrics.len());
            problems.push(
                SpecProblem::new("metrics", message).hint("leave it empty to take every metric that is a number"),
            );
        }
        for (at, name) in self.metrics.iter().enumerate() {
            let place = format!("metrics[{at}]");
            if name.is_empty() || name.len() > METRIC_NAME_BYTES_MAX {
                let message = format!("the name of a metric has 1 to {METRIC_NAME_BYTES_MAX} bytes");
                problems.push(SpecProblem::new(place, message));
            } else if self.metrics[..at].contains(name) {
                problems.push(SpecProblem::new(place, format!("`{name}` stands there twice")));
            }
        }
        if self.aggregates.is_empty() && self.quantiles.is_empty() {
            let problem = SpecProblem::new("aggregates", "nothing is computed");
            problems.push(problem.hint("name an aggregate, such as `mean`, or a quantile"));
        }
        if self.quantiles.len() > WINDOW_QUANTILES_MAX {
            let message = format!("{} quantiles are more than {WINDOW_QUANTILES_MAX}", self.quantiles.len());
            problems.push(SpecProblem::new("quantiles", message));
        }
        for (at, q) in self.quantiles.iter().enumerate().filter(|(_, q)| !(0.0..=1.0).contains(*q)) {
            let problem = SpecProblem::new(format!("quantiles[{at}]"), format!("{q} is not between 0 and 1"));
            problems.push(problem.hint("the 99th percentile is 0.99"));
        }
    }

    /// How many slices (or sessions) of one key can be open at a time.
    fn check_slices(&self, problems: &mut Vec<SpecProblem>) {
        let (slice, size, place) = match grid::Grid::of(self).shape {
            grid::Shape::Aligned { slice, size, .. } => (slice, size, "slide"),
            grid::Shape::Session { gap } => (gap, gap, "gap"),
        };
        let held = (size + self.bound.0 + self.lateness.0) / slice;
        if held > WINDOW_PARTS_MAX as i64 {
            let message =
                format!("{held} slices of {} would be held for each key, more than {WINDOW_PARTS_MAX}", Span(slice));
            let hint = "choose a size that is a multiple of the slide, a longer slide or gap, or less lateness";
            problems.push(SpecProblem::new(place, message).hint(hint));
        }
        let open = size / self.slide.map_or(size, |slide| slide.0);
        if self.emit == Emit::Update && open > UPDATED_PANES_MAX {
            let message = format!("{open} open panes of each key would be said at every update");
            problems.push(SpecProblem::new("emit", message).hint("use `close`, or a longer slide"));
        }
    }
}

fn check_length(place: &str, span: Option<Span>, wanted: bool, problems: &mut Vec<SpecProblem>) {
    match span {
        None if wanted => {
            problems.push(SpecProblem::new(place, "is missing").hint(format!("for example {place} = \"10s\"")))
        }
        Some(_) if !wanted => problems.push(SpecProblem::new(place, "means nothing for this kind of window")),
        Some(span) if !(LENGTH_MIN..=LENGTH_MAX).contains(&span) => {
            problems.push(SpecProblem::new(place, format!("{span} is not between 1ms and 366d")));
        }
        _ => {}
    }
}
