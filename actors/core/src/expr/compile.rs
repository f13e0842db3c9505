//! From text to a tree: what the parser gives is checked against the dialect, and its names become numbers.

use std::sync::Arc;

use cel::{
    Env,
    common::ast::{CallExpr, Expr as Node, IdedExpr, LiteralValue, SourceInfo, operators},
};

use super::{Expr, ExprError, Variable};
use crate::limits::{EXPR_BRACKETS_MAX, EXPR_BYTES_MAX, EXPR_DEPTH_MAX};

/// Functions of text and of conversion, called as `f(x)` or `x.f(y)`.
const FUNCTIONS: [&str; 8] = ["size", "contains", "startsWith", "endsWith", "int", "uint", "double", "string"];
/// Functions called as `math.f(x)`.
const MATH: [&str; 10] = ["abs", "ceil", "floor", "round", "trunc", "sign", "sqrt", "isNaN", "isInf", "isFinite"];
const ARITHMETIC: [&str; 4] = [operators::ADD, operators::SUBSTRACT, operators::MULTIPLY, operators::DIVIDE];
const OTHER_OPERATORS: [&str; 12] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::IN,
];

pub(super) fn compile(source: &str) -> Result<Expr, ExprError> {
    if source.len() > EXPR_BYTES_MAX {
        return Err(plain(format!("an expression has at most {EXPR_BYTES_MAX} bytes, this one has {}", source.len())));
    }
    // Without macros: they are the loops of CEL, and the parser's way of expanding them can fail on half-read sources.
    let parser = Env::default()
        .with_optional_support(false)
        .parser()
        .max_recursion_depth(EXPR_BRACKETS_MAX as u16)
        .error_recovery_limit(4);
    let (mut tree, places) = parser.parse_with_source_info(source).map_err(|errors| syntax_error(source, errors))?;
    let mut dialect = Dialect { source, places, variables: Vec::new() };
    dialect.lower(&mut tree, 0)?;
    Ok(Expr { source: source.into(), tree: Arc::new(tree), variables: dialect.variables.into() })
}

/// What is known of a node's type without an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Static {
    /// An integer in every event.
    Int,
    /// Anything else; metrics among them.
    Other,
}

struct Dialect<'a> {
    source: &'a str,
    places: SourceInfo,
    variables: Vec<Variable>,
}

impl Dialect<'_> {
    fn lower(&mut self, node: &mut IdedExpr, depth: usize) -> Result<Static, ExprError> {
        if depth >= EXPR_DEPTH_MAX {
            return Err(plain(format!("the expression is nested more than {EXPR_DEPTH_MAX} levels deep")));
        }
        let id = node.id;
        match &mut node.expr {
            Node::Literal(LiteralValue::Int(_)) => Ok(Static::Int),
            Node::Literal(LiteralValue::Null) => {
                Err(self.at(id, "there is no `null`; `has(name)` tells whether a metric is there"))
            }
            Node::Literal(_) => Ok(Static::Other),
            Node::Ident(_) | Node::Select(_) => {
                let name = dotted(&node.expr, 0).ok_or_else(|| self.at(id, "values of events have no fields"))?;
                Ok(self.name_variable(node, "v", &name))
            }
            Node::Call(call) if call.func_name == operators::INDEX => {
                let name = indexed(call).ok_or_else(|| self.at(id, "only `metrics[\"name\"]` has an index"))?;
                Ok(self.name_variable(node, "v", &name))
            }
            Node::Call(call) if call.func_name == operators::HAS && call.target.is_none() => {
                let name = match call.args.as_slice() {
                    [IdedExpr { expr: Node::Call(inner), .. }] => indexed(inner),
                    [one] => dotted(&one.expr, 0),
                    _ => None,
                };
                let name = name.ok_or_else(|| self.at(id, "`has` takes the name of a metric"))?;
                self.name_variable(node, "h", &name);
                Ok(Static::Other)
            }
            Node::Call(call) => self.lower_call(id, call, depth),
            Node::List(list) => {
                list.elements.iter_mut().try_for_each(|element| self.lower(element, depth + 1).map(drop))?;
                Ok(Static::Other)
            }
            Node::Map(_) | Node::Struct(_) => Err(self.at(id, "maps and messages are not available here")),
            Node::Comprehension(_) | Node::Unspecified => Err(self.at(id, "this is not available here")),
        }
    }

    fn lower_call(&mut self, id: u64, call: &mut CallExpr, depth: usize) -> Result<Static, ExprError> {
        let in_math =
            call.target.as_ref().is_some_and(|target| matches!(&target.expr, Node::Ident(name) if name == "math"));
        if in_math {
            self.lower_math(id, call)?;
        } else {
            self.check_function(id, call)?;
            if let Some(target) = &mut call.target {
                self.lower(target, depth + 1)?;
            }
        }
        let mut types = [Static::Other; 2];
        for (at, arg) in call.args.iter_mut().enumerate() {
            let found = self.lower(arg, depth + 1)?;
            if let Some(slot) = types.get_mut(at) {
                *slot = found;
            }
        }
        let name = call.func_name.as_str();
        if ARITHMETIC.contains(&name) && call.args.len() == 2 {
            for at in 0..2 {
                if types == [Static::Int, Static::Other] && at == 0 || types == [Static::Other, Static::Int] && at == 1
                {
                    convert(&mut call.args[at], "double");
                }
            }
            return Ok(if types == [Static::Int; 2] { Static::Int } else { Static::Other });
        }
        if name == operators::MODULO && call.args.len() == 2 {
            (0..2).filter(|at| types[*at] == Static::Other).for_each(|at| convert(&mut call.args[at], "int"));
            return Ok(Static::Int);
        }
        let int = matches!(name, "int" | "size") || name == operators::NEGATE && types[0] == Static::Int;
        Ok(if int { Static::Int } else { Static::Other })
    }

    /// `math.greatest` and `math.least` are macros elsewhere; here they are the functions behind these.
    fn lower_math(&mut self, id: u64, call: &mut CallExpr) -> Result<(), ExprError> {
        let extreme = match call.func_name.as_str() {
            "greatest" => "math.@max",
            "least" => "math.@min",
            name if MATH.contains(&name) => return Ok(()),
            name => return Err(self.at(id, &format!("there is no function `math.{name}`"))),
        };
        if call.args.is_empty() {
            return Err(self.at(id, "`math.greatest` and `math.least` need a number"));
        }
        call.target = None;
        call.func_name = extreme.to_owned();
        if call.args.len() > 2 {
            let elements = std::mem::take(&mut call.args);
            call.args = vec![IdedExpr { id, expr: Node::List(cel::common::ast::ListExpr::new(elements)) }];
        }
        Ok(())
    }

    fn check_function(&self, id: u64, call: &CallExpr) -> Result<(), ExprError> {
        let name = call.func_name.as_str();
        let operator = ARITHMETIC.contains(&name) || OTHER_OPERATORS.contains(&name) || name == operators::MODULO;
        if operator || FUNCTIONS.contains(&name) {
            return Ok(());
        }
        let message = match name {
            "all" | "exists" | "exists_one" | "map" | "filter" => format!("there are no loops, so no `{name}`"),
            _ => match crate::problem::did_you_mean(name, FUNCTIONS) {
                Some(hint) => format!("there is no function `{name}`; {hint}"),
                None => format!("there is no function `{name}`"),
            },
        };
        Err(self.at(id, &message))
    }

    /// Puts the number of a variable in the place of its name: `v` asks for the value, `h` whether there is one.
    fn name_variable(&mut self, node: &mut IdedExpr, question: &str, name: &str) -> Static {
        let variable = match name {
            "device" => Variable::Device,
            "device_type" => Variable::DeviceType,
            "ts" => Variable::Ts,
            metric => Variable::Metric(metric.into()),
        };
        let number = self.variables.iter().position(|known| *known == variable).unwrap_or_else(|| {
            self.variables.push(variable.clone());
            self.variables.len() - 1
        });
        node.expr = Node::Ident(format!("{question}{number}"));
        if variable == Variable::Ts { Static::Int } else { Static::Other }
    }

    fn at(&self, id: u64, message: &str) -> ExprError {
        let column = self.places.offset_for(id).map(|(start, _)| start.saturating_add(1).min(self.source.len() as u32));
        ExprError { message: message.to_owned(), column }
    }
}

/// Makes a number of another type out of a node: at once when it is a literal, in each event otherwise.
fn convert(node: &mut IdedExpr, function: &str) {
    if let (Node::Literal(LiteralValue::Int(n)), "double") = (&node.expr, function) {
        node.expr = Node::Literal(LiteralValue::Double((*n.inner() as f64).into()));
        return;
    }
    let inner = std::mem::take(node);
    *node = IdedExpr {
        id: inner.id,
        expr: Node::Call(CallExpr { func_name: function.to_owned(), target: None, args: vec![inner] }),
    };
}

/// The name that an identifier with its fields spells: `motor.temperature`.
fn dotted(node: &Node, depth: usize) -> Option<String> {
    match node {
        _ if depth >= EXPR_DEPTH_MAX => None,
        Node::Ident(name) => Some(name.trim_start_matches('.').to_owned()),
        Node::Select(select) if !select.test => {
            Some(format!("{}.{}", dotted(&select.operand.expr, depth + 1)?, select.field))
        }
        _ => None,
    }
}

/// The name in `metrics["name"]`.
fn indexed(call: &CallExpr) -> Option<String> {
    match call.args.as_slice() {
        [IdedExpr { expr: Node::Ident(map), .. }, IdedExpr { expr: Node::Literal(LiteralValue::String(name)), .. }]
            if map == "metrics" && call.func_name == operators::INDEX =>
        {
            Some(name.inner().to_owned())
        }
        _ => None,
    }
}

/// The parser's first complaint, in one line.
fn syntax_error(source: &str, errors: cel::ParseErrors) -> ExprError {
    let Some(first) = errors.errors.first() else {
        return plain("this is not an expression".to_owned());
    };
    if errors.errors.iter().any(|error| error.msg.contains("Recursion limit")) {
        return plain(format!("the expression has more than {EXPR_BRACKETS_MAX} brackets one inside the other"));
    }
    let mut message = first.msg.trim_start_matches("Syntax error: ").to_owned();
    if let Some(cut) = message.find(" expecting ") {
        message.truncate(cut);
    }
    let (line, column) = (first.pos.0.max(1) as usize, first.pos.1.max(1) as usize);
    let before: usize = source.split_inclusive('\n').take(line - 1).map(|line| line.chars().count()).sum();
    ExprError { message: message.replace('\n', " "), column: Some((before + column) as u32) }
}

fn plain(message: String) -> ExprError {
    ExprError { message, column: None }
}
