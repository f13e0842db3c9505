//! How things are called in the store.

use millpond_core::{ids::device_hash, time::Timestamp};

/// Columns that every file has; with those that its folders say, no metric may be called so.
pub const FIXED_COLUMNS: [&str; 8] = ["device", "time", "seq", "site", "origin", "incarnation", "record", "quality"];
const FOLDER_COLUMNS: [&str; 2] = ["tenant", "day"];
const ESCAPE: &str = "metric:";

pub const MANIFESTS: &str = "events/_manifests";
/// Sorts before all manifests.
pub const PROOF: &str = "events/_manifests/-kept";
pub const EVENTS: &str = "events";
pub const COLD: &str = "cold";

const DAY_NS: i64 = 86_400_000_000_000;

/// Days since 1970 in UTC.
pub fn day_of(time: i64) -> i32 {
    time.div_euclid(DAY_NS) as i32
}

/// First and last nanosecond of a day.
pub fn bounds_of(day: i32) -> (i64, i64) {
    let first = i64::from(day).saturating_mul(DAY_NS);
    let last = (i128::from(day) + 1) * i128::from(DAY_NS) - 1;
    (first, last.min(i128::from(i64::MAX)) as i64)
}

/// As in `2026-11-20`.
pub fn day_text(day: i32) -> String {
    Timestamp(bounds_of(day).0).to_string()[..10].to_owned()
}

/// The column of a metric. Engines take names without regard to case, and so does this.
pub fn column_of(metric: &str) -> String {
    let lower = metric.to_ascii_lowercase();
    let taken = FIXED_COLUMNS.contains(&lower.as_str()) || FOLDER_COLUMNS.contains(&lower.as_str());
    if taken || lower.starts_with(ESCAPE) { format!("{ESCAPE}{metric}") } else { metric.to_owned() }
}

/// A value in the name of a folder, as Hive writes it: engines turn `%41` back into `A`.
fn folder_value(value: &str) -> String {
    if value.is_empty() {
        return "__HIVE_DEFAULT_PARTITION__".to_owned();
    }
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => text.push(byte as char),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// `number` is the manifest's that the file was written for.
pub fn data_path(top: &str, tenant: &str, day: i32, shape: &str, number: u64, id: &str) -> String {
    format!("{top}/tenant={}/day={}/{shape}-{number:012}-{id}.parquet", folder_value(tenant), day_text(day))
}

/// The number in the name of a file of events.
pub fn number_of_data(path: &str) -> Option<u64> {
    let name = path.rsplit('/').next()?.strip_suffix(".parquet")?;
    name.split('-').nth(1)?.parse().ok()
}

pub fn manifest_path(number: u64) -> String {
    format!("{MANIFESTS}/{number:020}.json.zst")
}

pub fn number_of_manifest(path: &str) -> Option<u64> {
    let digits = path.rsplit('/').next()?.strip_suffix(".json.zst")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// A short name for a text that will never name another one.
pub fn hashed(text: &str) -> String {
    format!("{:016x}", device_hash(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_day() {
        assert_eq!(day_text(day_of(0)), "1970-01-01");
        assert_eq!(day_text(day_of(-1)), "1969-12-31");
        assert_eq!(day_text(day_of(i64::MIN)), "1677-09-21");
        assert_eq!(day_text(day_of(i64::MAX)), "2262-04-11");
        let (first, last) = bounds_of(20_000);
        assert_eq!((day_of(first), day_of(last), day_of(last + 1)), (20_000, 20_000, 20_001));
    }

    #[test]
    fn no_metric_takes_the_column_of_something_else() {
        assert_eq!(column_of("temperature"), "temperature");
        assert_eq!(column_of("Time"), "metric:Time");
        assert_eq!(column_of("day"), "metric:day");
        assert_eq!(column_of("metric:day"), "metric:metric:day");
    }

    #[test]
    fn numbers_are_read_from_names() {
        let path = data_path(EVENTS, "a b/ü", 20_000, "00aa", 42, "beef");
        assert_eq!(path, "events/tenant=a%20b%2F%C3%BC/day=2024-10-04/00aa-000000000042-beef.parquet");
        assert_eq!(number_of_data(&path), Some(42));
        assert_eq!(number_of_manifest(&manifest_path(42)), Some(42));
        assert_eq!(number_of_manifest("events/_manifests/42.json.zst"), None);
    }
}
