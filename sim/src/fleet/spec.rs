//! What stands on the floor and what shall happen there.

use millpond_core::time::{Span, Timestamp};

use super::kind::MachineKind;

/// A fleet, as data.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetSpec {
    pub presses: u32,
    pub ovens: u32,
    pub conveyors: u32,
    pub compressors: u32,
    /// Put before the names of machines, so that those of several fleets differ.
    pub prefix: String,
    /// When the model begins; the first readings fall within one `period` after it.
    pub start: Timestamp,
    /// Time between two readings of a machine.
    pub period: Span,
    /// How far, at most, a reading is taken from its due time, as a share of `period` from 0 to 0.5.
    pub jitter: f64,
    /// Working and resting hours; `None`: around the clock.
    pub shifts: Option<Shifts>,
    /// Short stops (setup, no material): mean time between two, and mean length; `None`: none.
    pub stops: Option<(Span, Span)>,
    /// Faults that come by themselves; `None`: only the planned ones.
    pub faults: Option<FaultRates>,
    pub planned: Vec<PlannedFault>,
    pub clocks: Clocks,
}

impl Default for FleetSpec {
    fn default() -> FleetSpec {
        FleetSpec {
            presses: 4,
            ovens: 2,
            conveyors: 3,
            compressors: 1,
            prefix: String::new(),
            start: Timestamp::from_millis(1_795_162_500_000),
            period: Span::from_secs(1),
            jitter: 0.0,
            shifts: None,
            stops: Some((Span::from_secs(600), Span::from_secs(45))),
            faults: None,
            planned: Vec::new(),
            clocks: Clocks::default(),
        }
    }
}

impl FleetSpec {
    /// A fleet of `machines`, mixed as on a floor: four presses, three conveyors and two ovens to each compressor.
    pub fn mixed(machines: u32) -> FleetSpec {
        let (presses, conveyors, ovens) = ((machines * 4).div_ceil(10), machines * 3 / 10, machines * 2 / 10);
        let compressors = machines - presses - conveyors - ovens;
        FleetSpec { presses, ovens, conveyors, compressors, ..FleetSpec::default() }
    }

    pub fn machines(&self) -> usize {
        self.counts().iter().map(|(_, count)| *count as usize).sum()
    }

    /// How many of each kind, in the order of their numbers.
    pub fn counts(&self) -> [(MachineKind, u32); 4] {
        [
            (MachineKind::Press, self.presses),
            (MachineKind::Oven, self.ovens),
            (MachineKind::Conveyor, self.conveyors),
            (MachineKind::Compressor, self.compressors),
        ]
    }
}

/// The floor works for `work`, rests for `rest`, and so on from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shifts {
    pub work: Span,
    pub rest: Span,
}

/// How often machines break, and how long it takes to repair them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRates {
    /// Mean working time until a fault of a machine that is neither new nor worn out.
    pub between: Span,
    /// Mean time from onset to repair.
    pub repair: Span,
    /// Time in which a fault develops from nothing to its full extent.
    pub ramp: Span,
}

/// A fault that happens at a known time. Times are from the fleet's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFault {
    /// Name of the machine, such as `press-0001`.
    pub device: String,
    pub kind: FaultKind,
    pub at: Span,
    pub repaired: Span,
    /// Time in which it develops from nothing to its full extent; zero: at once.
    pub ramp: Span,
}

/// What breaks and how it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// Vibration rises to about 12 mm/s, and the bearing (in a compressor: the oil) warms by tens of degrees.
    BearingWear,
    /// A compressor's pressure falls below its band and it runs loaded without end; a press loses force; an oven loses heat.
    Leak,
    /// A press or conveyor stands still with a high current; an oven stays at its set point with the door open.
    Jam,
}

impl FaultKind {
    pub const ALL: [FaultKind; 3] = [FaultKind::BearingWear, FaultKind::Leak, FaultKind::Jam];

    pub fn name(self) -> &'static str {
        match self {
            FaultKind::BearingWear => "bearing wear",
            FaultKind::Leak => "leak",
            FaultKind::Jam => "jam",
        }
    }
}

/// How wrong the devices' clocks are. Each device draws its own error from these ranges.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Clocks {
    /// Greatest constant error, either way.
    pub offset_max: Span,
    /// Greatest drift, either way, in parts per million.
    pub drift_ppm_max: f64,
    /// Devices stamp in steps of this length; zero: nanoseconds.
    pub resolution: Span,
}
