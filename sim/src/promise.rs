//! What is promised, by the names under which it is checked.

use serde::{Deserialize, Serialize};

/// See `docs/architecture.md` for what each means to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// What was acknowledged is stored as it was sent; or a dead letter, a receipt or a ledger says where it went.
    NothingLost,
    /// No reading is stored twice.
    NothingTwice,
    /// Panes are what the simplest model makes of the stored records, and no event is late without a reason.
    PanesAgree,
    /// Memory, queues and disk stay within their limits.
    StaysBounded,
    /// Each alert is told once by identity, in order, and none is missing.
    AlertsOnce,
    /// A node that says it is ready takes events; one that cannot says so.
    HealthIsHonest,
    /// Nodes of a site that are up and linked hold the same records, say the same panes, and agree on where devices are at home.
    Converges,
    /// What copies of a journal say that they cover is what the journal holds; a cloud has every record of its sites, or says where it is.
    LedgerCloses,
    /// A record in a copy is one that its origin wrote, byte for byte, and origins are nodes of the site.
    NobodyImpersonates,
    /// A change of a twin, a device or a rule that was acknowledged is there on all nodes, unless a later one has replaced it.
    TwinNeverLost,
    /// A box that fetches another site's records has all that it may have, once, and nothing else.
    KeepsToTerms,
    /// A node of a cloud tells of each life's results in order, and of what was said in its place after it.
    CausalOrder,
    /// The panes of a site are the same whether its nodes are asked or the cloud, and panes over all sites are what theirs come to.
    EdgeAndCloudAgree,
    /// What is new comes to the cloud at once, however much from before is still to come.
    LiveFirst,
    /// Over a line with bounds goes no more than they give, and nothing is given up before the time that a box says it can go on alone.
    BudgetIsTrue,
    /// An event that the cloud has taken counts once: in its archive or in its copies.
    OnceInTheLake,
    /// Definitions that go bad reach no site but the first, come back by themselves and say why; good ones are everywhere.
    CanaryFirst,
}

impl Promise {
    pub const ALL: [Promise; 17] = [
        Promise::NothingLost,
        Promise::NothingTwice,
        Promise::PanesAgree,
        Promise::StaysBounded,
        Promise::AlertsOnce,
        Promise::HealthIsHonest,
        Promise::Converges,
        Promise::LedgerCloses,
        Promise::NobodyImpersonates,
        Promise::TwinNeverLost,
        Promise::KeepsToTerms,
        Promise::CausalOrder,
        Promise::EdgeAndCloudAgree,
        Promise::LiveFirst,
        Promise::BudgetIsTrue,
        Promise::OnceInTheLake,
        Promise::CanaryFirst,
    ];

    pub fn all() -> Vec<Promise> {
        Promise::ALL.to_vec()
    }

    pub fn name(self) -> &'static str {
        match self {
            Promise::NothingLost => "nothing_lost",
            Promise::NothingTwice => "nothing_twice",
            Promise::PanesAgree => "panes_agree",
            Promise::StaysBounded => "stays_bounded",
            Promise::AlertsOnce => "alerts_once",
            Promise::HealthIsHonest => "health_is_honest",
            Promise::Converges => "converges",
            Promise::LedgerCloses => "ledger_closes",
            Promise::NobodyImpersonates => "nobody_impersonates",
            Promise::TwinNeverLost => "twin_never_lost",
            Promise::KeepsToTerms => "keeps_to_terms",
            Promise::CausalOrder => "causal_order",
            Promise::EdgeAndCloudAgree => "edge_and_cloud_agree",
            Promise::LiveFirst => "live_first",
            Promise::BudgetIsTrue => "budget_is_true",
            Promise::OnceInTheLake => "once_in_the_lake",
            Promise::CanaryFirst => "canary_first",
        }
    }
}

/// A promise that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// `None`: the run itself failed, by a panic or because less happened than the scenario expects.
    pub promise: Option<Promise>,
    pub node: String,
    /// What exactly, with an example.
    pub detail: String,
}
