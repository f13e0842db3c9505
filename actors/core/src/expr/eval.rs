//! Asking an expression about one event.

use std::sync::{Arc, LazyLock};

use cel::{
    Context, Env, ExecutionError, Value as Cel,
    common::{
        types::{CelBool, CelBytes, CelDouble, CelInt, CelString},
        value::CowVal,
    },
    context::VariableResolver,
};

use super::{Binding, EventView, Expr, ExprError, Outcome, Variable};
use crate::value::Value;

/// The functions that expressions may call: a constant, made once.
static FUNCTIONS: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::default().with_optional_support(false).with_stdlib();
    env.add_extension(cel::extensions::math).expect("nothing of `math` is in the standard library");
    Arc::new(env)
});

pub(super) fn eval(expr: &Expr, event: &EventView<'_>, binding: &Binding) -> Result<Option<Outcome>, ExprError> {
    let names = Names { expr, event, binding };
    let mut context = Context::with_env(FUNCTIONS.clone());
    context.set_variable_resolver(&names);
    match Cel::resolve_val(&expr.tree, &context) {
        Ok(value) => outcome(&value).map(Some),
        // Names are numbers by now, and all of them are known: one that cannot be resolved is a metric that is not there.
        Err(ExecutionError::UndeclaredReference(name)) if names.variable(&name, 'v').is_some() => Ok(None),
        Err(error) => Err(error_of(expr, error)),
    }
}

/// Answers for the variables of an expression: `v3` is the value of the third, `h3` whether it has one.
struct Names<'a> {
    expr: &'a Expr,
    event: &'a EventView<'a>,
    binding: &'a Binding,
}

impl Names<'_> {
    fn variable(&self, name: &str, question: char) -> Option<(&Variable, Option<u16>)> {
        let number: usize = name.strip_prefix(question)?.parse().ok()?;
        Some((self.expr.variables.get(number)?, self.binding.0.get(number).copied().flatten()))
    }
}

impl VariableResolver for Names<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if let Some((variable, column)) = self.variable(name, 'h') {
            let there = !matches!(variable, Variable::Metric(_)) || self.event.metric(column).is_some();
            return Some(CowVal::owned(CelBool::from(there)));
        }
        let (variable, column) = self.variable(name, 'v')?;
        Some(match variable {
            Variable::Device => CowVal::owned(CelString::from(self.event.device)),
            Variable::DeviceType => CowVal::owned(CelString::from(self.event.device_type)),
            Variable::Ts => CowVal::owned(CelInt::from(self.event.time.as_millis())),
            Variable::Metric(_) => match self.event.metric(column)? {
                Value::F64(v) => CowVal::owned(CelDouble::from(v)),
                Value::I64(v) => CowVal::owned(CelDouble::from(v as f64)),
                Value::Bool(v) => CowVal::owned(CelBool::from(v)),
                Value::Text(v) => CowVal::owned(CelString::from(v)),
                Value::Bytes(v) => CowVal::owned(CelBytes::from(v)),
            },
        })
    }
}

fn outcome(value: &CowVal<'_, '_>) -> Result<Outcome, ExprError> {
    if let Some(v) = value.downcast_ref::<CelBool>() {
        return Ok(Outcome::Bool(*v.inner()));
    }
    if let Some(v) = value.downcast_ref::<CelDouble>() {
        return Ok(Outcome::F64(*v.inner()));
    }
    if let Some(v) = value.downcast_ref::<CelInt>() {
        return Ok(Outcome::I64(*v.inner()));
    }
    if let Some(v) = value.downcast_ref::<CelString>() {
        return Ok(Outcome::Text(v.inner().to_owned()));
    }
    match Cel::try_from(value.as_ref()) {
        Ok(Cel::UInt(v)) => Ok(i64::try_from(v).map_or(Outcome::F64(v as f64), Outcome::I64)),
        _ => Err(ExprError {
            message: format!(
                "the value is neither a number, nor a boolean, nor text, but a {}",
                value.get_type().name()
            ),
            column: None,
        }),
    }
}

fn error_of(expr: &Expr, error: ExecutionError) -> ExprError {
    let mut message = error.to_string();
    // Lists and texts of events can be long, and the error repeats them.
    if let Some((cut, _)) = message.char_indices().nth(300) {
        message.truncate(cut);
        message.push('…');
    }
    ExprError { message: format!("`{}`: {message}", expr.source), column: None }
}
