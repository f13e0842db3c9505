//! Who may know whom. The manifest proves it, not good intentions.

use std::{collections::BTreeMap, path::Path, process::Command};

use serde_json::Value;

use crate::support::sources;

/// Which crates of ours a crate may depend on.
const ARROWS: [(&str, &[&str]); 10] = [
    ("millpond-core", &[]),
    ("millpond-env", &["millpond-core"]),
    ("millpond-store", &["millpond-core"]),
    ("millpond-gateway", &["millpond-core", "millpond-env"]),
    ("millpond-actors", &["millpond-core", "millpond-env", "millpond-store", "millpond-gateway"]),
    ("millpond-proto", &["millpond-core"]),
    ("millpond-lake", &["millpond-core"]),
    (
        "millpond-cluster",
        &[
            "millpond-core",
            "millpond-env",
            "millpond-store",
            "millpond-gateway",
            "millpond-proto",
            "millpond-lake",
            "millpond-actors",
        ],
    ),
    (
        "millpond-sim",
        &[
            "millpond-core",
            "millpond-env",
            "millpond-store",
            "millpond-gateway",
            "millpond-proto",
            "millpond-lake",
            "millpond-actors",
            "millpond-cluster",
        ],
    ),
    (
        "millpond",
        &[
            "millpond-core",
            "millpond-env",
            "millpond-store",
            "millpond-gateway",
            "millpond-proto",
            "millpond-lake",
            "millpond-actors",
            "millpond-cluster",
            "millpond-sim",
        ],
    ),
];

/// The only crates that may name a package.
const OWNERS: [(&str, &[&str]); 17] = [
    ("rmp-serde", &["millpond-core"]),
    ("cel", &["millpond-core"]),
    ("redb", &["millpond-store", "millpond-sim"]),
    ("foca", &["millpond-proto"]),
    ("automerge", &["millpond-proto"]),
    ("ractor", &["millpond-actors", "millpond-cluster"]),
    ("parquet", &["millpond-lake"]),
    ("datafusion", &["millpond-cluster"]),
    ("object_store", &["millpond-lake", "millpond-sim"]),
    ("zstd", &["millpond-lake"]),
    ("axum", &["millpond-gateway"]),
    ("sonic-rs", &["millpond-gateway"]),
    ("quinn", &["millpond-cluster", "millpond-sim"]),
    ("rustls", &["millpond-cluster", "millpond-sim"]),
    ("clap", &["millpond"]),
    ("mdns-sd", &["millpond"]),
    ("tracing-subscriber", &["millpond"]),
];

/// What the pure crates can never name: runtimes, actors, networks, clocks, randomness.
const IMPURE: [&str; 17] = [
    "tokio",
    "tokio-util",
    "async-std",
    "smol",
    "futures",
    "futures-util",
    "ractor",
    "quinn",
    "mio",
    "hyper",
    "chrono",
    "time",
    "jiff",
    "quanta",
    "rand",
    "getrandom",
    "uuid",
];
const PURE: [&str; 3] = ["millpond-core", "millpond-store", "millpond-proto"];

/// Direct dependencies of each of our crates, those of tests left out.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).expect("metadata is JSON");
    let names = |package: &Value| {
        let all = package["dependencies"].as_array().expect("a list").iter();
        let normal = all.filter(|dependency| dependency["kind"].as_str() != Some("dev"));
        normal.map(|dependency| dependency["name"].as_str().expect("a name").to_string()).collect()
    };
    let packages = metadata["packages"].as_array().expect("a list").iter();
    packages.map(|package| (package["name"].as_str().expect("a name").to_string(), names(package))).collect()
}

#[test]
fn crates_depend_only_along_the_arrows() {
    for (name, dependencies) in dependencies() {
        let allowed = ARROWS.iter().find(|(crate_name, _)| *crate_name == name);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{name} has no line in ARROWS"));
        for dependency in dependencies.iter().filter(|dependency| dependency.starts_with("millpond")) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn packages_are_named_by_their_owners_only() {
    for (name, dependencies) in dependencies() {
        for (package, owners) in OWNERS {
            let named = dependencies.iter().any(|dependency| dependency == package);
            assert!(!named || owners.contains(&name.as_str()), "{name} must not name {package}");
        }
    }
}

#[test]
fn pure_crates_can_name_no_runtime_network_or_clock() {
    let dependencies = dependencies();
    for name in PURE {
        for dependency in &dependencies[name] {
            // foca takes its randomness from outside, in the terms of `rand`; without features that crate has none of its own.
            let lent = name == "millpond-proto" && dependency == "rand";
            assert!(lent || !IMPURE.contains(&dependency.as_str()), "{name} must not name {dependency}");
        }
    }
    for root in ["actors/core/src", "actors/store/src", "cluster/proto/src"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(root), &mut |path, text| {
            if path.ends_with("tests.rs") || path.ends_with("testing.rs") {
                return;
            }
            for clock in ["std::time::Instant", "SystemTime", "Instant::now", "std::thread", "std::net"] {
                assert!(!text.contains(clock), "{} names {clock}", path.display());
            }
        });
    }
}

#[test]
fn no_source_file_has_two_subjects() {
    for root in ["src", "actors", "cluster", "sim", "tests"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(root), &mut |path, text| {
            assert!(text.lines().count() <= 600, "{} has more than 600 lines", path.display());
        });
    }
}
