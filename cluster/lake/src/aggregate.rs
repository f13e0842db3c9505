//! A series in steps.

use std::collections::BTreeMap;

use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use millpond_core::time::{Span, Timestamp};

use crate::{
    column::Cells,
    error::{LakeError, Result},
    footer::Footer,
    lake::Lake,
    manifest::{File, Manifest},
    partial::Partial,
    points::AHEAD,
    series::{Found, Series, times_of},
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

    fn end_of(self, step: u64) -> i128 {
        i128::from(self.origin) + (i128::from(step) + 1) * i128::from(self.length)
    }
}

impl Lake {
    /// What a series comes to in each step of `step` from its start on, or as a whole; at most `limit` steps.
    ///
    /// Where the rows of the device in a file lie within one step nothing but the file's end is read.
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
            let known = |group: usize, columns: &[usize]| known(&footer, series, grid, group, columns, &mut steps);
            for found in self.find(file, &footer, series, false, known).await? {
                count(found, grid, &mut steps)?;
            }
        }
        steps.retain(|_, partial| !partial.is_empty());
        Ok(steps)
    }
}

/// Adds what the footer says of a row group that is wholly the device's, when it lies within one step; `false` when it does not.
fn known(
    footer: &Footer,
    series: &Series,
    grid: Grid,
    group: usize,
    columns: &[usize],
    steps: &mut BTreeMap<u64, Partial>,
) -> bool {
    let (Some((first, last)), Some(Some(sums))) = (times_of(footer, group), footer.sums.0.get(group)) else {
        return false;
    };
    let inside = series.start.0 <= first && last < series.end.0;
    if !inside || grid.step_of(first) != grid.step_of(last) {
        return false;
    }
    let step = steps.entry(grid.step_of(first)).or_default();
    columns.iter().filter_map(|column| sums.get(column - METRICS)).for_each(|partial| step.merge(partial));
    true
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
