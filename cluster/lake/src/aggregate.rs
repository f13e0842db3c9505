//! A series in steps.

use std::{collections::BTreeMap, ops::Range};

use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use millpond_core::time::{Span, Timestamp};

use crate::{
    column::Cells,
    error::{LakeError, Result},
    footer::Footer,
    hours::{self, HOUR_NS, Hour},
    lake::Lake,
    manifest::{File, Manifest},
    partial::Partial,
    points::AHEAD,
    series::{Found, Series, groups_of, times_of},
    shape::METRICS,
};

/// Steps in which there is something, in order, each with its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steps {
    pub steps: Vec<(Timestamp, Partial)>,
    /// There are more than were asked for.
    pub more: bool,
}

/// Where steps begin: every `length` from `origin` on.
#[derive(Clone, Copy)]
struct Grid {
    origin: i64,
    length: u64,
}

impl Grid {
    /// Times are never before the origin.
    fn step_of(self, time: i64) -> u64 {
        time.wrapping_sub(self.origin) as u64 / self.length
    }

    fn start_of(self, step: u64) -> i64 {
        self.origin.wrapping_add(step.wrapping_mul(self.length) as i64)
    }

    /// Whether rows from the first to the second of these times are all asked for, and in the same step.
    fn is_one_step(self, series: &Series, (first, last): (i64, i64)) -> bool {
        series.start.0 <= first && last < series.end.0 && self.step_of(first) == self.step_of(last)
    }

    fn end_of(self, step: u64) -> i128 {
        i128::from(self.origin) + (i128::from(step) + 1) * i128::from(self.length)
    }
}

impl Lake {
    /// What a series comes to in each step of `step` from its start on, or as a whole; at most `limit` steps.
    ///
    /// Where the rows of the device in a file lie within one step nothing but the file's end is read, and no values where those of an hour do.
    ///
    /// # Errors
    /// When the store can not be read, or something of it is damaged.
    pub async fn aggregate(
        &self,
        manifest: &Manifest,
        series: &Series,
        step: Option<Span>,
        limit: usize,
    ) -> Result<Steps> {
        let length = step.map_or(u64::MAX, |step| step.0.max(1) as u64);
        let grid = Grid { origin: series.start.0, length };
        let days = series.files(manifest);
        let each: Vec<BoxFuture<'_, _>> =
            days.iter().map(|files| self.steps_of_day(files, series, grid).boxed()).collect();
        let mut found = stream::iter(each).buffered(AHEAD);
        let mut all: BTreeMap<u64, Partial> = BTreeMap::new();
        while let Some(steps) = found.try_next().await? {
            for (step, partial) in steps {
                all.entry(step).or_default().merge(&partial);
            }
            // A step may go on in the next day, so that one more is needed to know that there are too many.
            if all.len() > limit.saturating_add(1) {
                break;
            }
        }
        let more = all.len() > limit;
        let start = |step: u64| Timestamp(grid.start_of(step));
        Ok(Steps { steps: all.into_iter().take(limit).map(|(step, partial)| (start(step), partial)).collect(), more })
    }

    async fn steps_of_day(&self, files: &[&File], series: &Series, grid: Grid) -> Result<BTreeMap<u64, Partial>> {
        let mut steps: BTreeMap<u64, Partial> = BTreeMap::new();
        for file in files {
            let footer = self.footer(file).await?;
            for (group, whole) in groups_of(&footer, series) {
                if whole && known(&footer, series, grid, group, &mut steps) {
                    continue;
                }
                let rows = self.rows_of_series(file, &footer, group, whole, series).await?;
                let rows = match footer.hours(group).filter(|_| whole && grid.length >= HOUR_NS as u64) {
                    Some(place) => {
                        let hours = self.hours(file, &footer, group, place).await?;
                        known_hours(&footer, series, grid, &hours, rows, &mut steps)
                    }
                    None => vec![rows],
                };
                for rows in rows {
                    for found in self.values(file, &footer, group, rows, series, false).await? {
                        count(found, grid, &mut steps)?;
                    }
                }
            }
        }
        steps.retain(|_, partial| !partial.is_empty());
        Ok(steps)
    }

    async fn hours(&self, file: &File, footer: &Footer, group: usize, place: Range<u64>) -> Result<Vec<Hour>> {
        let pieces = self.read(file.tier, footer, std::slice::from_ref(&place)).await?;
        let bytes = pieces.first().map_or(&[][..], |(_, bytes)| bytes);
        hours::decode(bytes, footer.rows(group), footer.columns.metrics.len())
            .ok_or_else(|| LakeError::damaged(&footer.path, "the sums of its hours are malformed"))
    }
}

/// Adds what the footer says of a row group that is wholly the device's, when it lies within one step; `false` when it does not.
fn known(footer: &Footer, series: &Series, grid: Grid, group: usize, steps: &mut BTreeMap<u64, Partial>) -> bool {
    let (Some((first, last)), Some(Some(sums))) = (times_of(footer, group), footer.sums.0.get(group)) else {
        return false;
    };
    if !grid.is_one_step(series, (first, last)) {
        return false;
    }
    let step = steps.entry(grid.step_of(first)).or_default();
    let columns = footer.columns_of(&series.metric);
    columns.iter().filter_map(|column| sums.get(column - METRICS)).for_each(|partial| step.merge(partial));
    true
}

/// Adds the hours that lie within one step each; returns those of `rows` whose values are needed.
fn known_hours(
    footer: &Footer,
    series: &Series,
    grid: Grid,
    hours: &[Hour],
    rows: Range<usize>,
    steps: &mut BTreeMap<u64, Partial>,
) -> Vec<Range<usize>> {
    let columns = footer.columns_of(&series.metric);
    let mut needed: Vec<Range<usize>> = Vec::new();
    for hour in hours {
        if grid.is_one_step(series, hour.times) {
            let step = steps.entry(grid.step_of(hour.times.0)).or_default();
            columns.iter().filter_map(|column| hour.sums.get(column - METRICS)).for_each(|sum| step.merge(sum));
            continue;
        }
        let rows = hour.rows.start.max(rows.start)..hour.rows.end.min(rows.end);
        match needed.last_mut() {
            _ if rows.is_empty() => {}
            Some(before) if before.end == rows.start => before.end = rows.end,
            _ => needed.push(rows),
        }
    }
    needed
}

fn count(mut found: Found, grid: Grid, steps: &mut BTreeMap<u64, Partial>) -> Result<()> {
    let path = found.values.path().to_owned();
    found.values.skip(found.inside.start)?;
    let (cells, levels) = found.values.read(found.inside.len())?;
    let times = &found.times[found.inside.clone()];
    let mut there =
        times.iter().enumerate().filter(|(at, _)| levels.is_none_or(|levels| levels[*at] > 0)).map(|(_, time)| *time);
    let numbers: &mut dyn Iterator<Item = f64> = match cells {
        Cells::F64(values) => &mut values.iter().copied(),
        Cells::I64(values) => &mut values.iter().map(|value| *value as f64),
        Cells::Bool(values) => &mut values.iter().map(|value| f64::from(u8::from(*value))),
        Cells::Bytes(_) => return Ok(()),
        Cells::I32(_) => return Err(LakeError::damaged(&path, "a metric is of a type that is not written")),
    };
    let Some(mut time) = there.next() else { return Ok(()) };
    let (mut step, mut partial) = (grid.step_of(time), Partial::default());
    let mut end = grid.end_of(step);
    for value in numbers {
        if i128::from(time) >= end {
            steps.entry(step).or_default().merge(&std::mem::take(&mut partial));
            step = grid.step_of(time);
            end = grid.end_of(step);
        }
        partial.add(time, value);
        let Some(next) = there.next() else { break };
        time = next;
    }
    steps.entry(step).or_default().merge(&partial);
    Ok(())
}
