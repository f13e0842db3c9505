//! How a node acts: the actors of the data plane, the journal's thread, and their supervision. Decisions are made by plain structs in
//! `millpond-core`; an actor here owns one, carries input in and effects out.

pub mod config;
pub mod edge;
pub mod other_sites;
pub mod settings;
pub mod site;
pub mod upkeep;

pub mod adopt;

mod alert;
mod api;
mod dead_letters;
mod defined;
mod device;
mod front;
mod handover;
mod health;
mod journal;
pub mod merged;
mod metrics;
mod notifier;
mod plane;
pub mod query;
mod recovery;
mod root;
mod running;
mod schemas;
pub mod shapes;
mod shard;
mod shares;
pub mod site_panes;
mod tree;
mod window;
mod writer;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use api::QUERY;
pub use running::{DevicesAsked, Found, Merging, Running, STORE_FILE, StartError};
pub use settings::Settings;
pub use writer::Writer;

use millpond_core::{
    planted::{self, Bug},
    time::Span,
};
use millpond_env::Env;
use millpond_store::{Retention, RetentionRule};

/// Sends a message to an actor again and again until it is gone.
fn every<M: ractor::Message>(
    env: &Env,
    period: Span,
    to: ractor::ActorRef<M>,
    message: impl Fn() -> M + Send + 'static,
) {
    let timers = env.clone();
    env.spawn(async move {
        loop {
            timers.sleep(period).await;
            if to.cast(message()).is_err() {
                return;
            }
        }
    });
}

/// Bounds of a copy of another node's journal: as of this node's own, but for the events.
pub fn retention_of_copies(config: &config::Config) -> Retention {
    let mut retention = retention_of(&config.retention);
    retention.rules[millpond_core::record::Class::Raw as usize].max_bytes = config.site.replica_max_bytes;
    retention
}

fn retention_of(settings: &settings::RetentionSettings) -> Retention {
    let rule = |class: &settings::ClassRetention| RetentionRule {
        max_bytes: if planted::is(Bug::ForgetQuota) { u64::MAX } else { class.max_bytes },
        floor_bytes: class.floor_bytes,
        max_age_ms: class.max_age.as_millis(),
    };
    // In the order of `Class`.
    Retention { rules: [rule(&settings.alert), rule(&settings.state), rule(&settings.pane), rule(&settings.raw)] }
}
