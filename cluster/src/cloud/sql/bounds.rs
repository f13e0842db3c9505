//! What the conditions of a question leave of the readings, as far as whole files and records can be passed over by it.

use datafusion::{
    common::ScalarValue,
    logical_expr::{Between, BinaryExpr, Expr, Operator},
};
use millpond_core::time::Timestamp;

/// Nothing outside of it is asked for; maybe not all inside.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bounds {
    pub start: Timestamp,
    /// Exclusive.
    pub end: Timestamp,
    pub device: Option<String>,
    pub metric: Option<String>,
}

impl Bounds {
    pub fn all() -> Bounds {
        Bounds { start: Timestamp(i64::MIN), end: Timestamp(i64::MAX), device: None, metric: None }
    }

    /// The bounds of what fulfils all of the conditions.
    pub fn of<'a>(conditions: impl IntoIterator<Item = &'a Expr>) -> Bounds {
        let mut bounds = Bounds::all();
        conditions.into_iter().for_each(|condition| bounds.narrow(condition));
        bounds
    }

    fn narrow(&mut self, condition: &Expr) {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                self.narrow(left);
                self.narrow(right);
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (&**left, &**right) {
                (Expr::Column(column), Expr::Literal(value, _)) => self.compare(&column.name, *op, value),
                (Expr::Literal(value, _), Expr::Column(column)) => {
                    if let Some(op) = op.swap() {
                        self.compare(&column.name, op, value);
                    }
                }
                _ => {}
            },
            Expr::Between(Between { expr, negated: false, low, high }) => {
                if let (Expr::Column(column), Expr::Literal(low, _), Expr::Literal(high, _)) =
                    (&**expr, &**low, &**high)
                {
                    self.compare(&column.name, Operator::GtEq, low);
                    self.compare(&column.name, Operator::LtEq, high);
                }
            }
            _ => {}
        }
    }

    fn compare(&mut self, column: &str, op: Operator, value: &ScalarValue) {
        match (column, value) {
            ("time", ScalarValue::TimestampNanosecond(Some(ns), _)) => {
                let after = Timestamp(ns.saturating_add(1));
                if let Operator::Gt = op {
                    self.start = self.start.max(after);
                }
                if let Operator::GtEq | Operator::Eq = op {
                    self.start = self.start.max(Timestamp(*ns));
                }
                if let Operator::Lt = op {
                    self.end = self.end.min(Timestamp(*ns));
                }
                if let Operator::LtEq | Operator::Eq = op {
                    self.end = self.end.min(after);
                }
            }
            ("device", value) if op == Operator::Eq => self.device = text_of(value).or(self.device.take()),
            ("metric", value) if op == Operator::Eq => self.metric = text_of(value).or(self.metric.take()),
            _ => {}
        }
    }
}

fn text_of(value: &ScalarValue) -> Option<String> {
    match value {
        ScalarValue::Utf8(text) | ScalarValue::Utf8View(text) | ScalarValue::LargeUtf8(text) => text.clone(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    fn at(ns: i64) -> Expr {
        lit(ScalarValue::TimestampNanosecond(Some(ns), Some("UTC".into())))
    }

    #[test]
    fn conditions_narrow_what_is_read() {
        let within = [col("time").gt_eq(at(5)).and(at(9).gt(col("time"))), col("device").eq(lit("a"))];
        let expected = Bounds { start: Timestamp(5), end: Timestamp(9), device: Some("a".into()), metric: None };
        assert_eq!(Bounds::of(&within), expected);
        let between = Bounds::of(&[col("time").between(at(5), at(9))]);
        assert_eq!((between.start, between.end), (Timestamp(5), Timestamp(10)));
        let one = Bounds::of(&[col("time").eq(at(5)), lit("t").eq(col("metric"))]);
        assert_eq!((one.start, one.end, one.metric), (Timestamp(5), Timestamp(6), Some("t".into())));
    }

    #[test]
    fn what_says_nothing_of_all_rows_narrows_nothing() {
        let either = col("device").eq(lit("a")).or(col("time").lt(at(5)));
        let others =
            [either, col("device").not_eq(lit("a")), col("time").not_between(at(1), at(2)), col("value").gt(lit(3.0))];
        assert_eq!(Bounds::of(&others), Bounds::all());
    }
}
