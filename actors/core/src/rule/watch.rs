//! One rule over all devices of a shard.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{
    Phase, RuleSpec, Signal,
    judge::{Estimate, Previous, Test},
    phase::{Levels, Slot, Step},
    spec::Condition,
};
use crate::{
    batch::{Batch, Column, ColumnValues, DeviceRef, Run, Shape},
    expr::{Binding, EventView, Expr, Truth, type_name},
    limits::FACT_BYTES_MAX,
    time::{Span, Timestamp},
    value::Value,
};

#[derive(Debug)]
pub(super) struct Rule {
    pub name: Arc<str>,
    pub metric: Arc<str>,
    pub test: Test,
    pub hold: Span,
    /// Positions in the list of types; `None` means all devices, typed or not.
    pub types: Option<Vec<u32>>,
    pub facts: Vec<(String, Expr)>,
    /// What the condition is about, so that what was learnt under another one is not believed.
    pub condition: String,
    pub slots: Vec<Slot>,
    pub previous: Vec<Previous>,
    pub estimates: Vec<Estimate>,
    pub counters: RuleCounters,
}

/// How a rule sees the columns of a shape.
#[derive(Debug)]
pub(super) struct Plan {
    pub rule: usize,
    pub column: usize,
    pub binding: Option<Binding>,
}

/// What a rule could not judge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleCounters {
    /// Events that lacked a metric of the rule's expression.
    pub missing: u64,
    /// Events for which the rule's expression or enrichment had no value.
    pub errors: u64,
    pub last_error: Option<String>,
}

/// The rows of one run, with what is known of its device.
pub(super) struct Events<'a> {
    pub batch: &'a Batch,
    pub run: Run,
    pub device: DeviceRef,
    pub rows: Option<&'a [bool]>,
    pub types: &'a [String],
}

impl<'a> Events<'a> {
    fn name(&self) -> &'a str {
        self.batch.device(&self.run)
    }

    fn rows(&self) -> impl Iterator<Item = usize> + use<'a> {
        let rows = self.rows;
        self.run.rows().filter(move |row| rows.is_none_or(|rows| rows[*row]))
    }

    fn view(&self, row: usize) -> EventView<'a> {
        let device_type = type_name(self.device, self.types);
        EventView { batch: self.batch, row, device: self.name(), device_type, time: self.batch.times[row] }
    }
}

impl Rule {
    pub fn new(spec: &RuleSpec, types: &[String]) -> Option<Rule> {
        let metric = match &spec.when {
            Condition::Threshold { metric, .. } | Condition::Rate { metric, .. } | Condition::Zscore { metric, .. } => {
                metric
            }
            _ => "",
        };
        let position = |name: &String| types.iter().position(|known| known == name).map(|at| at as u32);
        let facts = spec.enrich.iter().filter_map(|(name, source)| Some((name.clone(), Expr::compile(source).ok()?)));
        Some(Rule {
            name: spec.name.as_str().into(),
            metric: metric.into(),
            test: Test::new(spec)?,
            hold: spec.hold,
            types: (!spec.device_types.is_empty()).then(|| spec.device_types.iter().filter_map(position).collect()),
            facts: facts.collect(),
            condition: format!("{:?}", spec.when),
            slots: Vec::new(),
            previous: Vec::new(),
            estimates: Vec::new(),
            counters: RuleCounters::default(),
        })
    }

    pub fn concerns(&self, device_type: u32) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(&device_type))
    }

    pub fn slot(&mut self, index: u32) -> &mut Slot {
        of_device(&mut self.slots, index)
    }

    fn is_active(&self, index: u32) -> bool {
        self.slots.get(index as usize).is_some_and(Slot::is_active)
    }

    /// Ends what holds for a device that the rule does not watch any more.
    pub fn abandon(&mut self, index: u32) -> Option<Step> {
        let worse = self.test.worse();
        self.slots.get_mut(index as usize)?.end(f64::NAN, worse)
    }

    pub fn plan(&self, rule: usize, shape: &Shape) -> Option<Plan> {
        match &self.test {
            Test::Silence { .. } => None,
            Test::Expression(expr) => {
                let mut metrics = expr.metrics().peekable();
                let concerned = metrics.peek().is_none() || metrics.any(|metric| shape.position(metric).is_some());
                concerned.then(|| Plan { rule, column: usize::MAX, binding: Some(expr.bind(shape)) })
            }
            _ => Some(Plan { rule, column: shape.position(&self.metric)?, binding: None }),
        }
    }

    pub fn judge(&mut self, plan: &Plan, events: &Events<'_>, out: &mut Vec<Signal>) {
        if let Some(binding) = &plan.binding {
            return self.judge_expression(binding, events, out);
        }
        let column = &events.batch.columns[plan.column];
        let index = events.device.index;
        if let Test::Threshold(levels) = &self.test
            && !self.is_active(index)
            && nothing_raises(levels, column, &events.run)
        {
            return;
        }
        for row in events.rows() {
            let Some(value) = column.value(row).and_then(|value| value.as_f64()).filter(|value| !value.is_nan()) else {
                continue;
            };
            let (at, active) = (events.batch.times[row], self.is_active(index));
            let judged = match &self.test {
                Test::Threshold(levels) => Some((value, levels.hold(value, active))),
                Test::Rate(levels) => of_device(&mut self.previous, index)
                    .rate(at, value)
                    .filter(|rate| !rate.is_nan())
                    .map(|rate| (rate, levels.hold(rate, active))),
                Test::Zscore(zscore) => zscore
                    .score(of_device(&mut self.estimates, index), value)
                    .map(|score| (score, score.abs() > zscore.limit)),
                Test::Expression(_) | Test::Silence { .. } => None,
            };
            if let Some((value, holds)) = judged
                && (holds || active)
            {
                self.step(events, row, (value, holds), out);
            }
        }
    }

    fn judge_expression(&mut self, binding: &Binding, events: &Events<'_>, out: &mut Vec<Signal>) {
        let Test::Expression(expr) = &self.test else { return };
        let expr = expr.clone();
        for row in events.rows() {
            let holds = match expr.truth(&events.view(row), binding) {
                Ok(truth) => {
                    self.counters.missing += u64::from(truth == Truth::Missing);
                    truth == Truth::True
                }
                Err(error) => {
                    self.counters.error(error.message);
                    false
                }
            };
            if holds || self.is_active(events.device.index) {
                let value = first_number(&expr, events.batch, row);
                let (metric, value) = value.unwrap_or(("", f64::from(u8::from(holds))));
                if *self.metric != *metric {
                    self.metric = metric.into();
                }
                self.step(events, row, (value, holds), out);
            }
        }
    }

    fn step(&mut self, events: &Events<'_>, row: usize, (value, holds): (f64, bool), out: &mut Vec<Signal>) {
        let at = events.batch.times[row];
        let Some(step) = self.advance(events.device.index, at, holds, value) else { return };
        let mut signal = self.signal(events.name(), step, at, value);
        if step.phase == Phase::Firing {
            signal.facts = self.facts(&events.view(row));
        }
        out.push(signal);
    }

    /// Takes in that the condition holds for a device, or not.
    pub fn advance(&mut self, index: u32, at: Timestamp, holds: bool, value: f64) -> Option<Step> {
        let (hold, worse) = (self.hold, self.test.worse());
        self.slot(index).judge(at, holds, value, hold, worse)
    }

    pub fn signal(&self, key: &str, step: Step, at: Timestamp, value: f64) -> Signal {
        let Step { phase, since, peak } = step;
        let (rule, metric) = (self.name.clone(), self.metric.clone());
        Signal { rule, key: key.into(), phase, at, since, metric, value, peak, facts: Vec::new() }
    }

    /// The enrichment of an event; what has no value is left out, what fails says so.
    fn facts(&mut self, event: &EventView<'_>) -> Vec<(String, String)> {
        let mut facts = Vec::with_capacity(self.facts.len());
        for (name, expr) in &self.facts {
            let mut text = match expr.eval(event) {
                Ok(Some(outcome)) => outcome.to_string(),
                Ok(None) => {
                    self.counters.missing += 1;
                    continue;
                }
                Err(error) => {
                    let text = format!("error: {}", error.message);
                    self.counters.error(error.message);
                    text
                }
            };
            let end = (0..=FACT_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
            facts.push((name.clone(), text));
        }
        facts
    }
}

impl RuleCounters {
    fn error(&mut self, message: String) {
        self.errors += 1;
        self.last_error = Some(message);
    }
}

fn of_device<T: Clone + Default>(states: &mut Vec<T>, index: u32) -> &mut T {
    let at = index as usize;
    if states.len() <= at {
        states.resize(at + 1, T::default());
    }
    &mut states[at]
}

/// Whether a look at the whole run shows that no event of it raises. Gaps may raise here; the closer look knows them.
fn nothing_raises(levels: &Levels, column: &Column, run: &Run) -> bool {
    match &column.values {
        ColumnValues::F64(values) => !levels.raised_by_any(&values[run.rows()]),
        ColumnValues::I64(values) => {
            let values: SmallVec<[f64; 64]> = values[run.rows()].iter().map(|v| *v as f64).collect();
            !levels.raised_by_any(&values)
        }
        ColumnValues::Bool(_) => false,
        ColumnValues::Text(_) | ColumnValues::Bytes(_) => true,
    }
}

fn first_number<'a>(expr: &'a Expr, batch: &Batch, row: usize) -> Option<(&'a str, f64)> {
    expr.metrics().find_map(|metric| {
        let value = batch.columns[batch.shape.position(metric)?].value(row)?;
        matches!(value, Value::F64(_) | Value::I64(_)).then_some(())?;
        Some((metric, value.as_f64().filter(|value| !value.is_nan())?))
    })
}
