//! What Prometheus is told of other sites.

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// By site each.
#[derive(Debug)]
pub(super) struct Measures {
    pub lag: IntGaugeVec,
    pub silent: IntGaugeVec,
    pub taken: IntCounterVec,
    pub given: IntCounterVec,
    pub refused: IntCounterVec,
    pub connected: IntGaugeVec,
    pub undelivered: IntGaugeVec,
    pub delivered_bytes: IntCounterVec,
    pub endurance: GaugeVec,
    pub order_applied: IntGaugeVec,
}

impl Measures {
    /// Nothing is taken from a site any more.
    pub fn forget(&self, site: &str) {
        for gauge in [&self.lag, &self.silent] {
            let _ = gauge.remove_label_values(&[site]);
        }
    }

    pub fn new(registry: &Registry) -> Result<Measures, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help);
        let measures = Measures {
            lag: IntGaugeVec::new(
                opts("millpond_other_site_lag_records", "Records that another site offers and that are not here yet"),
                &["site"],
            )?,
            silent: IntGaugeVec::new(
                opts("millpond_other_site_silent_seconds", "How long no node of another site has said what it has"),
                &["site"],
            )?,
            taken: IntCounterVec::new(
                opts("millpond_other_site_taken_records_total", "Records of another site that were stored"),
                &["site"],
            )?,
            given: IntCounterVec::new(
                opts("millpond_other_site_given_records_total", "Records that nodes of another site were given"),
                &["site"],
            )?,
            refused: IntCounterVec::new(
                opts(
                    "millpond_other_site_refused_requests_total",
                    "Requests of another site's nodes for what they may not have or is not here, or that made no sense",
                ),
                &["site"],
            )?,
            connected: IntGaugeVec::new(
                opts("millpond_uplink_connected", "1 while this node is connected to the cloud"),
                &["cloud"],
            )?,
            undelivered: IntGaugeVec::new(
                opts(
                    "millpond_uplink_undelivered_records",
                    "Sequence numbers that this node is to deliver and that the cloud has not confirmed",
                ),
                &["cloud", "track"],
            )?,
            delivered_bytes: IntCounterVec::new(
                opts("millpond_uplink_sent_bytes_total", "Bytes of records that were sent to the cloud"),
                &["cloud", "lane"],
            )?,
            endurance: GaugeVec::new(
                opts(
                    "millpond_uplink_offline_budget_hours",
                    "How long the node can do without the cloud until it gives up what the cloud does not have, at the present rate",
                ),
                &["cloud", "class"],
            )?,
            order_applied: IntGaugeVec::new(
                opts(
                    "millpond_uplink_order_applied",
                    "1 while the node works with what the cloud ordered, 0 while it does not",
                ),
                &["cloud"],
            )?,
        };
        registry.register(Box::new(measures.endurance.clone()))?;
        for gauge in
            [&measures.lag, &measures.silent, &measures.connected, &measures.undelivered, &measures.order_applied]
        {
            registry.register(Box::new(gauge.clone()))?;
        }
        for counter in [&measures.taken, &measures.given, &measures.refused, &measures.delivered_bytes] {
            registry.register(Box::new(counter.clone()))?;
        }
        Ok(measures)
    }
}
