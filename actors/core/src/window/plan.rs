//! Which column of a batch goes to which slot of a key.

use std::{collections::BTreeMap, sync::Arc};

use super::WindowSpec;
use crate::{
    batch::Shape,
    limits::{WINDOW_METRICS_MAX, WINDOW_SHAPES_MAX},
    map::FixedMap,
    value::ValueType,
};

/// The metrics that keys have slots for. Most keys have the same ones: each set stands here once, under a number.
#[derive(Debug)]
pub struct Layouts {
    sets: Vec<Layout>,
    numbers: BTreeMap<Arc<[Arc<str>]>, u32>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Layout {
    /// Sorted, without repetition.
    names: Arc<[Arc<str>]>,
    /// Keys and held slices that have this layout.
    users: u32,
}

impl Layouts {
    /// The layout without metrics, which is always there.
    pub const EMPTY: u32 = 0;

    pub fn new() -> Layouts {
        let names: Arc<[Arc<str>]> = Arc::new([]);
        Layouts {
            sets: vec![Layout { names: names.clone(), users: 1 }],
            numbers: [(names, 0)].into(),
            free: Vec::new(),
        }
    }

    pub fn names(&self, layout: u32) -> &Arc<[Arc<str>]> {
        &self.sets[layout as usize].names
    }

    /// The number of a layout; it has one user more.
    pub fn enter(&mut self, names: Vec<Arc<str>>) -> u32 {
        if let Some(number) = self.numbers.get(names.as_slice()) {
            self.sets[*number as usize].users += 1;
            return *number;
        }
        let names: Arc<[Arc<str>]> = names.into();
        let layout = Layout { names: names.clone(), users: 1 };
        let number = match self.free.pop() {
            Some(number) => {
                self.sets[number as usize] = layout;
                number
            }
            None => {
                self.sets.push(layout);
                self.sets.len() as u32 - 1
            }
        };
        self.numbers.insert(names, number);
        number
    }

    pub fn share(&mut self, layout: u32) {
        self.sets[layout as usize].users += 1;
    }

    /// One user less; true when it was the last, and the number will mean another layout one day.
    pub fn leave(&mut self, layout: u32) -> bool {
        let set = &mut self.sets[layout as usize];
        set.users -= 1;
        let last = set.users == 0 && layout != Layouts::EMPTY;
        if last {
            let names = set.names.clone();
            self.numbers.remove(&names);
            self.free.push(layout);
        }
        last
    }
}

/// For the runs of one batch in keys of one layout: pairs of (column, slot).
#[derive(Clone, Debug)]
pub struct Mapping {
    pub pairs: Arc<[(u32, u32)]>,
    /// Columns for which a key had no room.
    pub left_out: u32,
}

/// What is taken of a shape.
#[derive(Debug)]
struct Plan {
    shape: Arc<Shape>,
    /// `(name, column)` of the metrics that are aggregated, by name.
    columns: Vec<(Arc<str>, u32)>,
    /// By layout; few.
    mappings: Vec<(u32, Mapping)>,
}

/// The plans of all shapes seen.
#[derive(Debug)]
pub struct Plans {
    /// Sorted; empty for all numbers.
    metrics: Vec<Arc<str>>,
    plans: Vec<Plan>,
    by_fingerprint: FixedMap<u64, usize>,
}

impl Plans {
    pub fn new(spec: &WindowSpec) -> Plans {
        let mut metrics: Vec<Arc<str>> = spec.metrics.iter().map(|name| name.as_str().into()).collect();
        metrics.sort();
        Plans { metrics, plans: Vec::new(), by_fingerprint: FixedMap::default() }
    }

    /// The plan for a shape: found by its fingerprint, but two shapes that share one are never taken for each other.
    pub fn find(&mut self, shape: &Arc<Shape>) -> usize {
        if let Some(at) = self.by_fingerprint.get(&shape.fingerprint()) {
            let known = &self.plans[*at].shape;
            if Arc::ptr_eq(known, shape) || known == shape {
                return *at;
            }
        }
        if self.plans.len() >= WINDOW_SHAPES_MAX {
            self.plans.clear();
            self.by_fingerprint.clear();
        }
        let columns = self.select(shape);
        self.plans.push(Plan { shape: shape.clone(), columns, mappings: Vec::new() });
        self.by_fingerprint.insert(shape.fingerprint(), self.plans.len() - 1);
        self.plans.len() - 1
    }

    /// `(name, column)` of what is taken of the shape, by name.
    pub fn columns(&self, plan: usize) -> &[(Arc<str>, u32)] {
        &self.plans[plan].columns
    }

    pub fn mapping(&self, plan: usize, layout: u32) -> Option<&Mapping> {
        self.plans[plan].mappings.iter().find(|(number, _)| *number == layout).map(|(_, mapping)| mapping)
    }

    /// Works out and remembers the mapping for a layout.
    pub fn map(&mut self, plan: usize, layout: u32, names: &[Arc<str>]) -> Mapping {
        const MAPPINGS_MAX: usize = 64;
        let plan = &mut self.plans[plan];
        let slot = |(name, column): &(Arc<str>, u32)| names.binary_search(name).ok().map(|slot| (*column, slot as u32));
        let pairs: Arc<[(u32, u32)]> = plan.columns.iter().filter_map(slot).collect();
        let left_out = (plan.columns.len() - pairs.len()) as u32;
        if plan.mappings.len() >= MAPPINGS_MAX {
            plan.mappings.clear();
        }
        let mapping = Mapping { pairs, left_out };
        plan.mappings.push((layout, mapping.clone()));
        mapping
    }

    /// `names` and those of the plan, as far as there is room; `None` when that adds nothing.
    pub fn widened(&self, plan: usize, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        let room = WINDOW_METRICS_MAX.saturating_sub(names.len());
        let mut wide = names.to_vec();
        let missing = |name: &&Arc<str>| names.binary_search(name).is_err();
        wide.extend(self.plans[plan].columns.iter().map(|(name, _)| name).filter(missing).take(room).cloned());
        wide.sort();
        wide.dedup();
        (wide.len() > names.len()).then_some(wide)
    }

    /// Forgets the mappings of a layout whose number may be given to another.
    pub fn forget_layout(&mut self, layout: u32) {
        self.plans.iter_mut().for_each(|plan| plan.mappings.retain(|(number, _)| *number != layout));
    }

    fn select(&self, shape: &Shape) -> Vec<(Arc<str>, u32)> {
        let is_number = |value_type| matches!(value_type, ValueType::F64 | ValueType::I64 | ValueType::Bool);
        let mut columns: Vec<(Arc<str>, u32)> = shape
            .metrics()
            .iter()
            .enumerate()
            .filter(|(_, metric)| is_number(metric.value_type))
            .filter_map(|(column, metric)| {
                if self.metrics.is_empty() {
                    return Some((Arc::from(&*metric.name), column as u32));
                }
                let at = self.metrics.binary_search_by(|name| (**name).cmp(&*metric.name)).ok()?;
                Some((self.metrics[at].clone(), column as u32))
            })
            .collect();
        columns.sort();
        columns
    }
}
