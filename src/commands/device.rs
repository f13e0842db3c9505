//! `millpond device`.

use std::process::ExitCode;

use millpond_gateway::client::http::{escape, query_string};
use serde_json::{Value, json};

use super::devices;
use crate::{
    commands::{out, remote::Remote},
    exit::{self, Told},
};

/// List, show, command or delete devices of the site
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond device list
  millpond device show press-1
  millpond device send press-1 restart --body '{\"in_s\":5}' --deadline 600
  millpond device sent press-1 1935c1a2b0000-7f3a21c4
  millpond device set press-9 type=press line=4
  millpond device delete press-9
  millpond device forget press-9 --data cloud-data")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show the devices of the site, wherever they are at home
    List(devices::Args),
    /// Show all that is known of one device
    Show {
        device: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Tell a device to do something
    ///
    /// The command is on disk when this returns. It waits for the device, also one that is away, is delivered on
    /// devices/DEVICE/commands/ID, and expires at its deadline. With the same --id it is the same command, however often it is given.
    Send {
        device: String,
        /// Name of the command, as the device knows it
        command: String,
        /// What goes with it: JSON, or else text
        #[arg(long, value_name = "JSON")]
        body: Option<String>,
        /// Seconds until it expires
        #[arg(long, value_name = "SECONDS", default_value_t = 3600.0)]
        deadline: f64,
        /// Identifier, to give the same command again without harm
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show how a command stands, or all that are not finished
    Sent {
        device: String,
        /// The command's identifier, as `send` said it
        id: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Say all that the registry has of a device; one that was deleted begins a new life
    Set {
        device: String,
        /// Fields of the device
        #[arg(value_name = "KEY=VALUE")]
        fields: Vec<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Delete a device from the registry, on every node and for good
    ///
    /// Nodes that are away hear of it when they are back; what they say of the device until then does not bring it back to life.
    Delete {
        device: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Forget the events of a device in the cloud, in all tiers and for good
    ///
    /// Asked of a node of the cloud. Events of the device from before that come later are not taken any more. Its panes, alerts and twin stay, and so
    /// does everything at its site.
    Forget {
        device: String,
        /// Whose device it is. Default: that of the user's tenant, or of `default`
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::List(args) => return devices::run(args).await,
        What::Show { device, remote } => show(&remote, &remote.get(&path(&device, "")).await?)?,
        What::Send { device, command, body, deadline, id, remote } => {
            let body = body.map(|body| serde_json::from_str(&body).unwrap_or(Value::String(body)));
            let command = json!({ "id": id, "name": command, "body": body, "deadline_s": deadline });
            show(&remote, &remote.post(&path(&device, "/commands"), &command).await?)?;
        }
        What::Sent { device, id, remote } => {
            let id = id.map_or(String::new(), |id| format!("/{}", escape(&id)));
            show(&remote, &remote.get(&path(&device, &format!("/commands{id}"))).await?)?;
        }
        What::Set { device, fields, remote } => {
            let fields = assignments(&fields)?;
            show(&remote, &remote.ask("PUT", &path(&device, ""), Some(fields.to_string())).await?)?;
        }
        What::Forget { device, tenant, remote } => {
            let path = format!("/v1/cloud/devices/{}/events{}", escape(&device), query_string(&[("tenant", tenant)]));
            show(&remote, &remote.ask("DELETE", &path, None).await?)?;
        }
        What::Delete { device, remote } => {
            show(&remote, &remote.ask("DELETE", &path(&device, ""), None).await?)?;
        }
    }
    Ok(exit::OK)
}

fn path(device: &str, rest: &str) -> String {
    format!("/v1/devices/{}{rest}", escape(device))
}

pub fn show(remote: &Remote, answer: &Value) -> anyhow::Result<()> {
    out(if remote.json { format!("{answer}\n") } else { serde_json::to_string_pretty(answer)? + "\n" })
}

/// `a.b=5 c=text d=` as a patch: values are JSON, or else text; an empty one removes.
pub fn assignments(all: &[String]) -> anyhow::Result<Value> {
    let mut patch = json!({});
    for assignment in all {
        let Some((key, value)) = assignment.split_once('=').filter(|(key, _)| !key.split('.').any(str::is_empty))
        else {
            return Err(Told::new(format!("`{assignment}` is no KEY=VALUE")).hint("for example net.rate=5").into());
        };
        let value = if value.is_empty() { Value::Null } else { serde_json::from_str(value).unwrap_or(value.into()) };
        let mut at = &mut patch;
        for part in key.split('.') {
            if !at.is_object() {
                *at = json!({});
            }
            at = &mut at[part];
        }
        *at = value;
    }
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_become_a_patch() {
        let check = |all: &[&str], expected: Value| {
            let all: Vec<String> = all.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(assignments(&all).expect("good"), expected);
        };
        check(&["a=5", "b.c=true", "b.d=on the left"], json!({"a": 5, "b": {"c": true, "d": "on the left"}}));
        check(&["a=", "b=\"7\"", "c=[1,2]", "d=x=y"], json!({"a": null, "b": "7", "c": [1, 2], "d": "x=y"}));
        for bad in ["a", "=5", "a..b=1"] {
            assert!(assignments(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
