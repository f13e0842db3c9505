//! Which un-synced writes are on the medium.

use millpond_core::map::FixedSet;
use rand::{RngExt, rngs::StdRng};

use super::{
    image::{Page, SECTORS_PER_PAGE},
    log::{Log, Op, What},
};

/// How an interruption treats everything that was not synced. Operations that decide each for themselves would hardly ever all be
/// kept, or all lost, and these are what happens most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Keep,
    Lose,
    Mix,
}

impl Mood {
    pub fn draw(rng: &mut StdRng) -> Mood {
        match rng.random_range(0..8_u32) {
            0 => Mood::Keep,
            1 => Mood::Lose,
            _ => Mood::Mix,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub ops: u64,
    /// Sectors.
    pub kept: u64,
    pub lost: u64,
    /// Some write is there in part.
    pub torn: bool,
}

/// Sectors whose content on the medium is one of those that the log knew, or newer.
#[derive(Debug)]
pub struct Settled {
    sectors: FixedSet<u64>,
    /// Cut off by a change of length that has happened: from here on, all.
    from: u64,
}

impl Settled {
    pub fn contains(&self, sector: u64) -> bool {
        sector >= self.from || self.sectors.contains(&sector)
    }
}

#[derive(Clone, Copy)]
enum Fate {
    Kept,
    Lost,
    Torn,
}

/// Walks the log backwards and hands each page with sectors that were lost to `undo`, with the mask of those sectors; of two calls
/// for one sector the later is right. The first `lengths_kept` changes of length have happened.
///
/// When the walk comes to an operation, the image holds for each sector either what the operation left there (everything later
/// was lost) or something newer that was kept. So it is enough to know which sectors are settled.
pub fn tear(
    log: &mut Log,
    mood: Mood,
    lengths_kept: usize,
    rng: &mut StdRng,
    tally: &mut Tally,
    mut undo: impl FnMut(u64, Option<Page>, u8),
) -> Settled {
    let mut settled = Settled { sectors: FixedSet::default(), from: u64::MAX };
    let mut length = log.ops().iter().filter(|op| op.changes_len()).count();
    while let Some((op, olds)) = log.pop() {
        tally.ops += 1;
        length -= usize::from(op.changes_len());
        match op.what {
            What::Write { .. } => {
                let (fate, before) = (draw_fate(mood, rng), *tally);
                for old in olds {
                    let mask = lost_sectors(&op, fate, old.page, &mut settled, rng, tally);
                    undo(old.page, old.content, mask);
                }
                tally.torn |= tally.kept > before.kept && tally.lost > before.lost;
            }
            What::SetLen if length < lengths_kept => {
                if op.is_cut() {
                    settled.from = settled.from.min(op.sectors().start);
                }
            }
            What::SetLen => {
                for old in olds {
                    let sectors = (0..SECTORS_PER_PAGE).map(|bit| (bit, old.page * SECTORS_PER_PAGE + bit));
                    let back = sectors.filter(|(_, at)| op.sectors().contains(at) && !settled.contains(*at));
                    undo(old.page, old.content, back.fold(0, |mask, (bit, _)| mask | 1 << bit));
                }
            }
        }
    }
    settled
}

fn draw_fate(mood: Mood, rng: &mut StdRng) -> Fate {
    match mood {
        Mood::Keep => Fate::Kept,
        Mood::Lose => Fate::Lost,
        Mood::Mix => [Fate::Kept, Fate::Lost, Fate::Torn][rng.random_range(0..3_usize)],
    }
}

/// Sectors of the page that the operation wrote in vain and that nothing newer has settled.
fn lost_sectors(op: &Op, fate: Fate, page: u64, settled: &mut Settled, rng: &mut StdRng, tally: &mut Tally) -> u8 {
    let (first, wrote) = (page * SECTORS_PER_PAGE, op.sectors());
    let mut lost = 0;
    for bit in 0..SECTORS_PER_PAGE {
        let sector = first + bit;
        if !wrote.contains(&sector) {
            continue;
        }
        let keep = match fate {
            Fate::Kept => true,
            Fate::Lost => false,
            Fate::Torn => rng.random(),
        };
        if settled.contains(sector) {
            continue;
        }
        if keep {
            settled.sectors.insert(sector);
            tally.kept += 1;
        } else {
            lost |= 1 << bit;
            tally.lost += 1;
        }
    }
    lost
}
