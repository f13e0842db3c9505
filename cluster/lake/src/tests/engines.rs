//! Other programs read what was written.

use std::process::Command;

use super::*;

/// Counts and sums as DuckDB finds them: in all files that the newest manifest names.
const DUCKDB: &str = r#"
import duckdb, json, sys
folder = sys.argv[1]
db = duckdb.connect()
db.execute("SET TimeZone = 'UTC'")
manifest = db.execute(f"SELECT max(file) FROM glob('{folder}/events/_manifests/*.json.zst')").fetchone()[0]
db.execute(f"SET VARIABLE files = (SELECT list('{folder}/' || f.path) FROM (SELECT unnest(files) AS f FROM read_json('{manifest}', maximum_object_size=100000000)))")
for files in ["getvariable('files')", f"'{folder}/events/**/*.parquet'"]:
    table = f"read_parquet({files}, union_by_name=true, hive_partitioning=true)"
    row = db.execute(f"""SELECT count(*), sum(temperature), count(DISTINCT device), count(seq), sum(record), count(quality),
        count(*) FILTER (running), min(epoch_ns("time"::TIMESTAMP_NS)), max(epoch_ns("time"::TIMESTAMP_NS)), count(DISTINCT day), min(tenant) FROM {table}""").fetchone()
    print(json.dumps([None if v is None else str(v) if isinstance(v, str) else float(v) if isinstance(v, float) else int(v) for v in row]))
"#;

#[test]
fn duckdb_reads_the_lake_as_it_lies() {
    let there = Command::new("python3").args(["-c", "import duckdb"]).output().is_ok_and(|out| out.status.success());
    if !there {
        println!("not tested: DuckDB, because python3 has none (pip install duckdb)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut pieces = records(1, 30);
    // Times of every unit.
    pieces[2].batch.times[0] = Timestamp(T0 * 1_000_000 + 5_000);
    pieces[3].batch.times[0] = Timestamp((T0 + DAY_MS) * 1_000_000 + 5);
    block_on(async {
        let store = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        let lake = open(&(Arc::new(store) as Arc<dyn ObjectStore>)).await;
        for at in 0..30 {
            lake.append(&pieces[at..at + 1], &[taken(at as u64 + 1, at as u64 + 1)], T0).await.unwrap();
        }
    });
    let out = Command::new("python3").args(["-c", DUCKDB]).arg(folder.path()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let rows = said(&pieces);
    let cell = |said: &Said, name: &str| said.6.iter().find(|cell| cell.0 == name).map(|cell| cell.1.clone());
    let number =
        |said: &Said| -> f64 { cell(said, "temperature").unwrap()[4..].trim_end_matches(')').parse().unwrap() };
    let days: std::collections::BTreeSet<i32> = rows.iter().map(|said| crate::names::day_of(said.2)).collect();
    let devices: std::collections::BTreeSet<&str> = rows.iter().map(|said| said.1.as_str()).collect();
    let expected = serde_json::json!([
        rows.len(),
        rows.iter().map(number).sum::<f64>(),
        devices.len(),
        rows.iter().filter(|said| said.3.is_some()).count(),
        rows.iter().map(|said| said.4).sum::<u64>(),
        rows.iter().filter(|said| said.5 != Quality::Good).count(),
        rows.iter().filter(|said| cell(said, "running").as_deref() == Some("Bool(true)")).count(),
        rows.iter().map(|said| said.2).min(),
        rows.iter().map(|said| said.2).max(),
        days.len(),
        TENANT,
    ]);
    let lines = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [expected.clone(), expected]);
}
