//! What happened, as a hash; on demand also as a list, compared with another run's, or as lines for a reader.

use std::{
    backtrace::Backtrace,
    collections::VecDeque,
    fmt::Write,
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use foldhash::fast::FixedState;

use super::core::{HostId, Instant};

/// What a run notes. The hash is over time, host, kind and detail of everything noted, in its order.
#[derive(Debug, Default)]
pub struct Tracer {
    hash: u64,
    noted: u64,
    record: Option<Vec<Note>>,
    compare: Option<Compare>,
    tail: Option<Tail>,
}

/// One thing that happened, short enough to keep millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    pub at: Instant,
    pub host: HostId,
    digest: u64,
}

/// Where two runs that should be the same part.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// Number of the event, from 0.
    pub index: u64,
    pub at: Instant,
    pub host: HostId,
    pub kind: &'static str,
    /// What the other run did in its place; `None`: it was over.
    pub other: Option<(Instant, HostId)>,
    /// Who noted it in this run.
    pub backtrace: String,
}

#[derive(Debug)]
struct Compare {
    other: Arc<Vec<Note>>,
    /// Number of the event that is compared with the first of the other run.
    from: u64,
    found: Option<Divergence>,
}

/// The last events, readable.
#[derive(Debug)]
struct Tail {
    keep: usize,
    lines: VecDeque<Line>,
}

/// An event for a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub index: u64,
    pub at: Instant,
    pub host: HostId,
    pub kind: &'static str,
    pub detail: String,
}

/// Bytes of an event's detail that a reader sees.
const DETAIL_BYTES_MAX: usize = 160;

impl Tracer {
    pub fn note(&mut self, at: Instant, host: HostId, kind: &'static str, detail: &[u8]) {
        let mut hasher = FixedState::with_seed(self.hash).build_hasher();
        hasher.write_u64(at.0);
        hasher.write_u64(u64::from(host.0) << 32 | detail.len() as u64);
        hasher.write(kind.as_bytes());
        hasher.write(detail);
        self.hash = hasher.finish();
        let index = self.noted;
        self.noted += 1;
        if let Some(record) = &mut self.record {
            record.push(Note { at, host, digest: self.hash });
        }
        if let Some(compare) = &mut self.compare
            && compare.found.is_none()
        {
            let note = Note { at, host, digest: self.hash };
            let other = compare.other.get((index - compare.from) as usize).copied();
            if other != Some(note) {
                let other = other.map(|note| (note.at, note.host));
                let backtrace = Backtrace::force_capture().to_string();
                compare.found = Some(Divergence { index, at, host, kind, other, backtrace });
            }
        }
        if let Some(tail) = &mut self.tail {
            if tail.lines.len() == tail.keep {
                tail.lines.pop_front();
            }
            tail.lines.push_back(Line { index, at, host, kind, detail: readable(detail) });
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Events so far.
    pub fn noted(&self) -> u64 {
        self.noted
    }

    pub fn record(&mut self) {
        self.record = Some(Vec::new());
    }

    pub fn take_record(&mut self) -> Vec<Note> {
        self.record.take().unwrap_or_default()
    }

    /// From now on each event is compared with that of another run, which was recorded from the same point on.
    pub fn compare(&mut self, other: Arc<Vec<Note>>) {
        self.compare = Some(Compare { other, from: self.noted, found: None });
    }

    pub fn divergence(&self) -> Option<&Divergence> {
        self.compare.as_ref().and_then(|compare| compare.found.as_ref())
    }

    /// Keeps the last `events` for readers.
    pub fn keep(&mut self, events: usize) {
        self.tail = Some(Tail { keep: events.max(1), lines: VecDeque::new() });
    }

    pub fn tail(&self) -> impl DoubleEndedIterator<Item = &Line> {
        self.tail.iter().flat_map(|tail| &tail.lines)
    }

    /// Takes the events kept since the last call.
    pub fn take_tail(&mut self) -> Vec<Line> {
        self.tail.as_mut().map(|tail| tail.lines.drain(..).collect()).unwrap_or_default()
    }
}

/// Text as it is, other bytes in hexadecimal.
fn readable(detail: &[u8]) -> String {
    let cut = &detail[..detail.len().min(DETAIL_BYTES_MAX)];
    let more = if detail.len() > cut.len() { "…" } else { "" };
    match std::str::from_utf8(cut) {
        Ok(text) if !text.chars().any(char::is_control) => format!("{text}{more}"),
        _ => {
            let mut hex = String::with_capacity(2 * cut.len());
            for byte in &cut[..cut.len().min(48)] {
                let _ = write!(hex, "{byte:02x}");
            }
            format!("{} bytes {hex}{more}", detail.len())
        }
    }
}
