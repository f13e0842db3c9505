//! What Prometheus is told of the sites.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::LifeLine;

/// By site each.
#[derive(Clone, Debug)]
pub(super) struct Measures {
    pub records: IntCounterVec,
    pub events: IntCounterVec,
    pub twice: IntCounterVec,
    pub at_site: IntGaugeVec,
    pub missing: IntGaugeVec,
    pub delivering: IntGaugeVec,
    pub refused: IntCounterVec,
    pub restarts: IntCounterVec,
    pub head: IntGaugeVec,
}

impl Measures {
    pub fn new(registry: &Registry) -> Result<Measures, prometheus::Error> {
        let counter = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["site"]);
        let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["site"]);
        let measures = Measures {
            records: counter("millpond_cloud_records_total", "Records of a site that were stored")?,
            events: counter("millpond_cloud_events_total", "Events in such records")?,
            twice: counter("millpond_cloud_known_runs_total", "Deliveries that brought nothing new")?,
            at_site: gauge("millpond_cloud_undelivered_records", "Records that a site has and the cloud does not")?,
            missing: gauge(
                "millpond_cloud_missing_records",
                "Records that are neither here nor accounted for: not 0 when something is wrong",
            )?,
            delivering: gauge("millpond_cloud_delivered_lives", "Journals of a site that somebody delivers now")?,
            refused: counter(
                "millpond_cloud_refused_deliveries_total",
                "Deliveries that made no sense or did not fit",
            )?,
            head: IntGaugeVec::new(
                Opts::new(
                    "millpond_cloud_site_head",
                    "1 for how a site stands with what it is to run, 0 for the others",
                ),
                &["site", "state"],
            )?,
            restarts: counter("millpond_cloud_site_restarts_total", "Times that the actor of a site failed")?,
        };
        for gauge in [&measures.at_site, &measures.missing, &measures.delivering, &measures.head] {
            registry.register(Box::new(gauge.clone()))?;
        }
        let counters = [&measures.records, &measures.events, &measures.twice, &measures.refused, &measures.restarts];
        for counter in counters {
            registry.register(Box::new(counter.clone()))?;
        }
        Ok(measures)
    }

    /// Where the records of a site are.
    pub fn show(&self, site: &str, lines: &[LifeLine]) {
        let sum = |part: fn(&LifeLine) -> u64| lines.iter().map(part).sum::<u64>() as i64;
        let site = [site];
        self.at_site.with_label_values(&site).set(sum(|line| line.line.at_site));
        self.missing.with_label_values(&site).set(sum(|line| line.line.missing));
        self.delivering.with_label_values(&site).set(sum(|line| u64::from(line.by.is_some())));
    }
}
