//! Where the records of a site have gone: what the cloud says of each of its journals, and how far the nodes say that these go.
//!
//! While its line is cut the cloud cannot know what a site has stored since; the site can. So a ledger is closed only when the cloud has everything that it
//! knows of, and knows of everything that is there.

use std::collections::BTreeMap;

use serde_json::Value;

/// Origin and incarnation.
pub type Life = (String, u64);
/// The last number of each journal, as its node says it.
pub type Heads = BTreeMap<Life, u64>;

/// The ledger of a site in the cloud.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger(BTreeMap<Life, Row>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    name: String,
    records: u64,
    delivered: u64,
    aggregated: u64,
    /// Given up at the site, for all reasons together.
    expired: u64,
    missing: u64,
    at_site: u64,
    /// Somebody delivers it.
    connected: bool,
}

impl Ledger {
    /// From an answer of `/v1/cloud/sites/{site}/ledger`.
    pub fn of_json(answer: &Value) -> Ledger {
        let row = |row: &Value| {
            let number = |key: &str| row[key].as_u64().unwrap_or_default();
            let reasons = row["expired"].as_object().into_iter().flatten();
            let found = Row {
                name: row["name"].as_str().unwrap_or_default().to_owned(),
                records: number("records"),
                delivered: number("delivered"),
                aggregated: number("aggregated"),
                expired: reasons.filter_map(|(_, records)| records.as_u64()).sum(),
                missing: number("missing"),
                at_site: number("at_site"),
                connected: row["delivered_by"].is_string(),
            };
            Some(((row["origin"].as_str()?.to_owned(), number("incarnation")), found))
        };
        Ledger(answer["rows"].as_array().into_iter().flatten().filter_map(row).collect())
    }

    fn sum(&self, part: fn(&Row) -> u64) -> u64 {
        self.0.values().map(part).sum()
    }

    pub fn delivered(&self) -> u64 {
        self.sum(|row| row.delivered)
    }

    pub fn missing(&self) -> u64 {
        self.sum(|row| row.missing)
    }

    /// Journals that somebody delivers.
    pub fn connected(&self) -> u64 {
        self.sum(|row| u64::from(row.connected))
    }

    pub fn journals(&self) -> usize {
        self.0.len()
    }

    /// All records that there are.
    pub fn records(&self, heads: &Heads) -> u64 {
        self.sum(|row| row.records) + self.unheard(heads)
    }

    /// Records that are still to come.
    pub fn at_site(&self, heads: &Heads) -> u64 {
        self.sum(|row| row.at_site) + self.unheard(heads)
    }

    /// Records that the nodes have and the cloud has not heard of.
    fn unheard(&self, heads: &Heads) -> u64 {
        let known = |life: &Life| self.0.get(life).map_or(0, |row| row.records);
        heads.iter().map(|(life, head)| head.saturating_sub(known(life))).sum()
    }

    pub fn is_closed(&self, heads: &Heads) -> bool {
        self.problem(heads).is_none()
    }

    /// Why it is not closed.
    pub fn problem(&self, heads: &Heads) -> Option<String> {
        if self.0.is_empty() {
            return Some("the cloud has nothing of it".to_owned());
        }
        let parts = |row: &Row| row.delivered + row.aggregated + row.expired + row.missing + row.at_site;
        if let Some(row) = self.0.values().find(|row| parts(row) != row.records) {
            return Some(format!("of {} records of {} {} are accounted for", row.records, row.name, parts(row)));
        }
        let of = |part: fn(&Row) -> u64, word: &str| {
            let rows = self.0.values().filter(|row| part(row) > 0);
            rows.map(|row| format!("{} of {} {word}", part(row), row.name)).collect::<Vec<_>>()
        };
        let mut found = of(|row| row.missing, "missing");
        found.extend(of(|row| row.at_site, "still at the site"));
        let unheard = self.unheard(heads);
        if unheard > 0 {
            found.push(format!("{unheard} of which the cloud has not heard"));
        }
        (!found.is_empty()).then(|| found.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ledger(missing: u64, at_site: u64) -> Ledger {
        Ledger::of_json(&json!({ "rows": [
            { "name": "hall", "origin": "aa", "incarnation": 0, "records": 10, "delivered": 7 - missing - at_site, "aggregated": 1,
              "expired": { "age": 2 }, "missing": missing, "at_site": at_site, "delivered_by": "aa" },
        ] }))
    }

    #[test]
    fn a_ledger_is_closed_when_nothing_is_missing_or_at_the_site() {
        let heads: Heads = [(("aa".to_owned(), 0), 10)].into();
        assert_eq!(ledger(0, 0).problem(&heads), None);
        assert_eq!(ledger(1, 0).problem(&heads).as_deref(), Some("1 of hall missing"));
        assert_eq!(ledger(0, 2).problem(&heads).as_deref(), Some("2 of hall still at the site"));
        assert!(!Ledger::default().is_closed(&heads));
    }

    #[test]
    fn a_ledger_is_open_while_a_node_has_more_than_the_cloud_has_heard_of() {
        let mut heads: Heads = [(("aa".to_owned(), 0), 12), (("bb".to_owned(), 0), 3)].into();
        assert_eq!((ledger(0, 1).at_site(&heads), ledger(0, 1).records(&heads)), (1 + 2 + 3, 15));
        assert_eq!(ledger(0, 0).problem(&heads).as_deref(), Some("5 of which the cloud has not heard"));
        heads.clear();
        assert!(ledger(0, 0).is_closed(&heads));
    }

    #[test]
    fn a_ledger_that_does_not_sum_up_is_not_closed() {
        let row =
            json!({ "rows": [{ "name": "hall", "origin": "aa", "incarnation": 0, "records": 10, "delivered": 9 }] });
        let problem = Ledger::of_json(&row).problem(&Heads::new());
        assert_eq!(problem.as_deref(), Some("of 10 records of hall 9 are accounted for"));
    }
}
