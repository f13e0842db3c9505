//! What a node of a cloud is asked.

use axum::routing::{delete, get, post, put};

use super::{Route, param, route, site};
use crate::http::login::Access::{Admin, Operator};

pub(super) fn routes() -> Vec<Route> {
    vec![
        route(
            "get",
            "/v1/cloud/sites",
            Operator,
            get(site::cloud_sites),
            "The sites that deliver to this node of a cloud.",
            "Any",
        )
        .of_tenants(),
        route(
            "get",
            "/v1/cloud/sites/{site}/ledger",
            Operator,
            get(site::cloud_ledger),
            "Where each record of a site has gone.",
            "Any",
        )
        .of_tenants(),
        route(
            "get",
            "/v1/cloud/lake",
            Operator,
            get(site::cloud_lake),
            "The files of the archive, as its newest manifest names them.",
            "Any",
        )
        .of_tenants(),
        route(
            "post",
            "/v1/cloud/archive",
            Admin,
            post(site::cloud_archive),
            "Moves what is settled into the archive, and puts the archive in order, now.",
            "Any",
        ),
        route(
            "delete",
            "/v1/cloud/devices/{device}/events",
            Admin,
            delete(site::cloud_forget),
            "Forgets the events of a device in all tiers; those of it from before are not taken any more.",
            "Any",
        )
        .params(const { &[param("tenant", "Whose device it is. Default: `default`.")] })
        .of_tenants(),
        route(
            "post",
            "/v1/sql",
            Operator,
            post(site::cloud_sql),
            "At a node of the cloud that was built for it: a question in SQL about the readings of all sites.",
            "SqlAnswer",
        )
        .of_tenants(),
        route(
            "get",
            "/v1/cloud/heads",
            Operator,
            get(site::cloud_heads),
            "The definitions that sites are to run, for each set of sites, with their texts.",
            "Any",
        )
        .params(const { &[param("tenant", "Whose sites. Default: all.")] })
        .of_tenants(),
        route(
            "put",
            "/v1/cloud/heads",
            Admin,
            put(site::put_cloud_heads),
            "Rolls definitions out to sites, a canary first; with `dry_run` only says what would be.",
            "Any",
        )
        .of_tenants(),
        route(
            "get",
            "/v1/cloud/rollouts",
            Operator,
            get(site::cloud_rollouts),
            "Rollouts, the newest first: how far each is, at which site, and why it was taken back.",
            "Any",
        )
        .of_tenants(),
        route(
            "post",
            "/v1/cloud/rollouts/{number}/undo",
            Admin,
            post(site::undo_cloud_rollout),
            "Takes a rollout back; its sites run what they ran before.",
            "Any",
        )
        .of_tenants(),
    ]
}
