//! What the kernel says of a process: its CPU time and its memory, from `/proc`.

use std::{io, path::Path};

use crate::world::os;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all its threads, also ended ones, in steps of the kernel's clock (10 ms).
    pub cpu_ns: u64,
    pub rss_bytes: u64,
    pub rss_peak_bytes: u64,
}

/// # Errors
/// When there is no such process, or no `/proc`.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let read = |name: &str| os::read(Path::new(&format!("/proc/{pid}/{name}")));
    let stat = read("stat")?;
    let status = String::from_utf8_lossy(&read("status")?).into_owned();
    parse(&String::from_utf8_lossy(&stat), &status, ticks_per_second())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is not as expected")))
}

fn parse(stat: &str, status: &str, ticks_per_second: u64) -> Option<Usage> {
    // The name in parentheses may hold blanks and parentheses itself; utime and stime are fields 14 and 15.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    let kib = |key: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some(Usage {
        cpu_ns: ticks * (1_000_000_000 / ticks_per_second.max(1)),
        rss_bytes: kib("VmRSS:")? << 10,
        rss_peak_bytes: kib("VmHWM:")? << 10,
    })
}

fn ticks_per_second() -> u64 {
    // SAFETY: sysconf has no preconditions.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_and_memory_are_read_past_a_name_with_parentheses() {
        let stat = "42 (mill) pond) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 4";
        let status = "Name:\tmillpond\nVmPeak:\t 9 kB\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\n";
        let usage = Usage { cpu_ns: 2_000_000_000, rss_bytes: 1 << 20, rss_peak_bytes: 2 << 20 };
        assert_eq!(parse(stat, status, 100), Some(usage));
        assert_eq!(parse("42 (x) S", status, 100), None);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(usage(std::process::id()).unwrap().rss_bytes > 1 << 20);
    }
}
