use millpond_core::{batch::BatchBuilder, time::Span, value::Value};
use proptest::prelude::*;

use super::*;

fn rows(seed: u64, spec: &FleetSpec, seconds: i64, cut_ms: i64) -> Vec<Reading> {
    let mut fleet = Fleet::new(seed, spec.clone());
    let mut out = Vec::new();
    let end = spec.start.saturating_add(Span::from_secs(seconds));
    let mut now = spec.start;
    while now < end {
        now = now.saturating_add(Span::from_millis(cut_ms)).min(end);
        fleet.step(now, &mut out);
    }
    out
}

fn any_spec() -> impl Strategy<Value = FleetSpec> {
    (0u32..4, 0u32..3, 0u32..3, 0u32..3, 20i64..3000, 0.0f64..0.5, any::<bool>()).prop_map(
        |(presses, ovens, conveyors, compressors, period_ms, jitter, busy)| FleetSpec {
            presses,
            ovens,
            conveyors,
            compressors,
            period: Span::from_millis(period_ms),
            jitter,
            shifts: busy.then_some(Shifts { work: Span::from_secs(40), rest: Span::from_secs(20) }),
            stops: Some((Span::from_secs(30), Span::from_secs(5))),
            faults: busy.then_some(FaultRates {
                between: Span::from_secs(30),
                repair: Span::from_secs(10),
                ramp: Span::from_secs(4),
            }),
            clocks: Clocks { offset_max: Span::from_secs(3), drift_ppm_max: 80.0, resolution: Span::from_millis(1) },
            ..FleetSpec::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn same_seed_same_rows(seed in any::<u64>(), spec in any_spec(), cut_ms in 100i64..20_000) {
        let whole = rows(seed, &spec, 60, 60_000);
        prop_assert_eq!(&whole, &rows(seed, &spec, 60, cut_ms));
        prop_assert!(whole.windows(2).all(|pair| pair[0].at <= pair[1].at));
        let expected = spec.machines() as i64 * (60_000_000_000 / spec.period.0);
        prop_assert!((whole.len() as i64 - expected).abs() <= 2 * spec.machines() as i64);
    }

    #[test]
    fn sequences_have_no_gaps(seed in any::<u64>(), spec in any_spec()) {
        let mut last = std::collections::BTreeMap::new();
        for reading in rows(seed, &spec, 60, 1000) {
            let before = last.insert(reading.device.clone(), (reading.seq, reading.at));
            prop_assert_eq!(reading.seq, before.map_or(0, |(seq, _)| seq) + 1);
            prop_assert!(before.is_none_or(|(_, at)| at < reading.at));
        }
    }

    #[test]
    fn values_stay_in_their_ranges(seed in any::<u64>(), spec in any_spec()) {
        for reading in rows(seed, &spec, 300, 1000) {
            for (info, sample) in reading.kind.metrics().iter().zip(&reading.samples) {
                prop_assert_eq!(sample.value().value_type(), info.value_type);
                if let Sample::F64(v) = sample {
                    prop_assert!(v.is_finite() && (info.min..=info.max).contains(v), "{} {} {v}", reading.device, info.name);
                }
            }
        }
    }

    #[test]
    fn mischief_loses_nothing(seed in any::<u64>(), spec in any_spec()) {
        let mut sent = rows(seed, &spec, 30, 1000);
        let all = sent.clone();
        let knobs = Mischief {
            duplicate: 0.1,
            disorder: 0.2,
            delay_max: Span::from_secs(5),
            silence: 0.02,
            silence_max: Span::from_secs(10),
            malformed: 0.1,
        };
        let mut out = Vec::new();
        Troublemaker::new(seed, knobs).pass(Timestamp::MAX, &mut sent, &mut out);
        let mut seen: Vec<Reading> = out
            .into_iter()
            .filter_map(|delivery| match delivery {
                Delivery::Reading(reading) => Some(reading),
                Delivery::Malformed { .. } => None,
            })
            .collect();
        seen.sort_by(|a, b| (a.at, &a.device, a.seq).cmp(&(b.at, &b.device, b.seq)));
        seen.dedup();
        let mut all = all;
        all.sort_by(|a, b| (a.at, &a.device, a.seq).cmp(&(b.at, &b.device, b.seq)));
        prop_assert_eq!(seen, all);
    }
}

#[test]
fn other_seeds_give_other_rows() {
    let spec = FleetSpec::default();
    assert_ne!(rows(1, &spec, 10, 1000), rows(2, &spec, 10, 1000));
}

#[test]
fn a_fault_shows_and_is_repaired() {
    let check = |device: &str, kind: FaultKind, metric: &str, above: bool, limit: f64| {
        let spec = FleetSpec {
            stops: None,
            planned: vec![PlannedFault {
                device: device.into(),
                kind,
                at: Span::from_secs(60),
                repaired: Span::from_secs(180),
                ramp: Span::from_secs(10),
            }],
            ..FleetSpec::default()
        };
        let passes = |from: i64, to: i64| {
            let (from, to) = (spec.start.0 + from * 1_000_000_000, spec.start.0 + to * 1_000_000_000);
            rows(7, &spec, 400, 1000)
                .iter()
                .filter(|r| *r.device == *device && r.at.0 >= from && r.at.0 < to)
                .filter_map(|r| r.value(metric)?.as_f64())
                .filter(|v| if above { *v > limit } else { *v < limit })
                .count()
        };
        assert_eq!(passes(0, 60), 0, "{device} {metric} before the fault");
        assert!(passes(100, 180) >= 40, "{device} {metric} during the fault");
        assert_eq!(passes(300, 400), 0, "{device} {metric} after the repair");
    };
    check("press-0001", FaultKind::BearingWear, "vibration", true, 6.0);
    check("press-0001", FaultKind::BearingWear, "bearing_temperature", true, 60.0);
    check("press-0002", FaultKind::Jam, "motor_current", true, 100.0);
    check("compressor-0001", FaultKind::Leak, "pressure", false, 6.0);
    check("conveyor-0001", FaultKind::Jam, "speed", false, 0.05);
    check("oven-0001", FaultKind::Jam, "power", true, 85.0);
}

#[test]
fn readings_are_written_as_json_and_as_rows() {
    let readings =
        rows(3, &FleetSpec { presses: 1, ovens: 0, conveyors: 0, compressors: 0, ..FleetSpec::default() }, 3, 1000);
    let mut json = String::new();
    readings[0].write_json(Some("device"), &mut json);
    assert!(json.starts_with("{\"device\":\"press-0001\",\"ts\":1795162500"), "{json}");
    assert!(json.contains("\"seq\":1,\"force\":"), "{json}");
    assert!(json.ends_with("\"state\":\"running\",\"guard_closed\":true}"), "{json}");

    let mut builder = BatchBuilder::default();
    readings.iter().for_each(|reading| reading.write_row(&mut builder));
    let batches = builder.finish();
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].rows(), readings.len());
    assert_eq!(batches[0].seq(1), Some(2));
    assert_eq!(batches[0].columns[6].value(0), Some(Value::Text("running")));
}

#[test]
fn machines_of_a_mixed_fleet_add_up() {
    for machines in [0, 1, 2, 3, 7, 10, 1000, 99_999] {
        assert_eq!(FleetSpec::mixed(machines).machines(), machines as usize);
    }
}
