//! Numbers as people read them.

use millpond_core::time::Span;

/// With blanks between thousands.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

pub fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = "bytes";
    for next in units {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, next);
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{} {unit}", rounded(size)) }
}

/// To three digits or whole.
pub fn rounded(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 || number.fract() == 0.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// To milliseconds, or to seconds when it is more than a minute.
pub fn time(ns: u64) -> Span {
    let grain = if ns >= 60_000_000_000 { 1_000_000_000 } else { 1_000_000 };
    Span((ns - ns % grain) as i64)
}

/// A point in the run, exactly enough to be found again.
pub fn moment(ns: u64) -> String {
    let (seconds, micros) = (ns / 1_000_000_000, ns / 1_000 % 1_000_000);
    format!("{:02}:{:02}:{:02}.{micros:06}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

pub fn plural(count: u64, what: &str) -> String {
    format!("{} {what}{}", number(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([number(0), number(999), number(1_000), number(8_640_000)], ["0", "999", "1 000", "8 640 000"]);
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536), bytes(2 << 30)],
            ["0 bytes", "1023 bytes", "1.50 KiB", "2 GiB"]
        );
        assert_eq!([rounded(3.0), rounded(1.234), rounded(43.21), rounded(126.4)], ["3", "1.23", "43.2", "126"]);
        assert_eq!([time(61_234_000_000).to_string(), time(1_500_400_000).to_string()], ["1m1s", "1s500ms"]);
        assert_eq!(moment(3_661_000_123_999), "01:01:01.000123");
        assert_eq!([plural(1, "fault"), plural(2_000, "fault")], ["1 fault", "2 000 faults"]);
    }
}
