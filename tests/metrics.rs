//! Every metric has a line in its page, and every line a metric.

use std::{collections::BTreeSet, path::Path};

use crate::support::sources;

#[test]
fn the_page_of_metrics_lists_what_the_program_has() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/reference/metrics.md")).expect("the page");
    let named = |text: &str, quote: char| -> BTreeSet<String> {
        let words = text.split(quote).filter(|word| word.starts_with("millpond_"));
        words.filter(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')).map(str::to_string).collect()
    };
    let mut there = BTreeSet::new();
    for folder in ["actors", "cluster/src/mesh", "cluster/src/sites", "cluster/src/cloud"] {
        sources(&root.join(folder), &mut |_, text| {
            there.extend(named(text, '"').into_iter().filter(|name| name.matches('_').count() > 1));
        });
    }
    let listed = named(&page, '`');
    assert_eq!(there.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new(), "not on the page");
    assert_eq!(listed.difference(&there).collect::<Vec<_>>(), Vec::<&String>::new(), "not in the program");
}
