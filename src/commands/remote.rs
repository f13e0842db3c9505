//! What all commands share that ask a running node.

use std::path::PathBuf;

use hyper::StatusCode;
use millpond_actors::edge::admin;
use millpond_gateway::client::http::{HttpClient, HttpError};
use serde_json::Value;

use crate::{
    exit::{Failure, Told},
    world::{World, os},
};

/// Which node is asked, and by whom.
#[derive(Debug, clap::Args)]
pub struct Remote {
    /// Address of the node's HTTP door
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL", help_heading = "Node")]
    pub url: String,
    /// Token to log in with
    ///
    /// Without it the environment variable MILLPOND_TOKEN is used, else the administrator's token from the data directory.
    #[arg(long, value_name = "TOKEN", help_heading = "Node")]
    pub token: Option<String>,
    /// Data directory of a node on this machine, for the administrator's token in it
    #[arg(long, default_value = "millpond-data", value_name = "DIR", help_heading = "Node")]
    pub data: PathBuf,
    /// Print JSON, one document per line, instead of a table
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

impl Remote {
    pub fn client(&self) -> anyhow::Result<HttpClient> {
        let from_file = || {
            let bytes = os::read(&self.data.join(admin::TOKEN_FILE)).ok()?;
            Some(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        let token = self.token.clone().or_else(|| os::var("MILLPOND_TOKEN")).or_else(from_file);
        HttpClient::new(World::client(), &self.url, token.as_deref())
            .map_err(|error| Told::new(error.to_string()).hint("for example --url http://127.0.0.1:8080").into())
    }

    /// Turns what went wrong into words and an exit code.
    pub fn told(&self, error: HttpError) -> anyhow::Error {
        let told = Told::new(format!("cannot get an answer from {}", self.url));
        let told = match &error {
            HttpError::Connect { .. } | HttpError::TimedOut { .. } | HttpError::Broken(_) => {
                told.failure(Failure::Unavailable).hint(
                    "is the node running? `millpond edge` prints its addresses when it is ready; give them with --url",
                )
            }
            HttpError::Refused { status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, .. } => told
                .failure(Failure::Refused)
                .hint("give a token with --token, or the node's data directory with --data"),
            HttpError::Refused { status, .. } if status.is_server_error() => told.failure(Failure::Unavailable),
            _ => told,
        };
        let told = match &error {
            HttpError::Refused { problem, .. } => match problem["hint"].as_str() {
                Some(hint) => told.hint(hint),
                None => told,
            },
            _ => told,
        };
        told.because(error).into()
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.client()?.get(path).await.map_err(|error| self.told(error))
    }

    /// Any other method.
    pub async fn ask(&self, method: &str, path: &str, body: Option<String>) -> anyhow::Result<Value> {
        self.client()?.ask(method, path, body.map(Into::into)).await.map_err(|error| self.told(error))
    }

    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.client()?.post(path, body).await.map_err(|error| self.told(error))
    }
}
