//! The scenarios that come with the program.

/// A scenario's text, by its name.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    pub name: &'static str,
    pub text: &'static str,
}

/// In the order of `sim list`.
pub const SHIPPED: [Shipped; 25] = [
    Shipped { name: "offline_24h", text: include_str!("../../scenarios/offline_24h.toml") },
    Shipped { name: "crash_storm", text: include_str!("../../scenarios/crash_storm.toml") },
    Shipped { name: "disk_full", text: include_str!("../../scenarios/disk_full.toml") },
    Shipped { name: "clock_jumps", text: include_str!("../../scenarios/clock_jumps.toml") },
    Shipped { name: "reconnect_storm", text: include_str!("../../scenarios/reconnect_storm.toml") },
    Shipped { name: "poison_device", text: include_str!("../../scenarios/poison_device.toml") },
    Shipped { name: "flash_slow", text: include_str!("../../scenarios/flash_slow.toml") },
    Shipped { name: "node_dies", text: include_str!("../../scenarios/node_dies.toml") },
    Shipped { name: "partition_heals", text: include_str!("../../scenarios/partition_heals.toml") },
    Shipped { name: "node_wiped", text: include_str!("../../scenarios/node_wiped.toml") },
    Shipped { name: "rolling_restart", text: include_str!("../../scenarios/rolling_restart.toml") },
    Shipped { name: "flaky_lte", text: include_str!("../../scenarios/flaky_lte.toml") },
    Shipped { name: "history_epoch", text: include_str!("../../scenarios/history_epoch.toml") },
    Shipped { name: "expired_certificate", text: include_str!("../../scenarios/expired_certificate.toml") },
    Shipped { name: "version_skew", text: include_str!("../../scenarios/version_skew.toml") },
    Shipped { name: "site_to_site", text: include_str!("../../scenarios/site_to_site.toml") },
    Shipped { name: "twenty_boxes", text: include_str!("../../scenarios/twenty_boxes.toml") },
    Shipped { name: "cloud_unreachable_7d", text: include_str!("../../scenarios/cloud_unreachable_7d.toml") },
    Shipped { name: "reconnect_all_sites", text: include_str!("../../scenarios/reconnect_all_sites.toml") },
    Shipped { name: "cloud_crash_storm", text: include_str!("../../scenarios/cloud_crash_storm.toml") },
    Shipped { name: "two_uplinks", text: include_str!("../../scenarios/two_uplinks.toml") },
    Shipped { name: "metered_line", text: include_str!("../../scenarios/metered_line.toml") },
    Shipped { name: "canary_goes_bad", text: include_str!("../../scenarios/canary_goes_bad.toml") },
    Shipped { name: "site_wiped", text: include_str!("../../scenarios/site_wiped.toml") },
    Shipped { name: "lying_object_store", text: include_str!("../../scenarios/lying_object_store.toml") },
];

pub fn shipped(name: &str) -> Option<&'static Shipped> {
    SHIPPED.iter().find(|scenario| scenario.name == name)
}
