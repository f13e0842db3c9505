//! `millpond node`: the membership of a node in a site.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use millpond_actors::STORE_FILE;
use millpond_cluster::identity::{
    self, BadToken, EnrolError, IdentityError, Newcomer, NodeIdentity, Refusal, Token, files, is_name,
};
use millpond_core::{
    ids::{Incarnation, Origin},
    time::{Span, Timestamp},
};
use millpond_env::Env;
use millpond_store::{OpenDevice, inspect};
use rand::RngExt;

use crate::{
    commands::out,
    exit::{self, Failure, Told},
    roles::edge::store_told,
    world::World,
};

/// Join a site, invite to it, leave it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond node invite --address 10.0.0.5:7800             on the node at which the site was founded, while it runs
  millpond node join mpj1-... --name oven-2                on the new node, before it starts
  millpond node show
  millpond node revoke 858d9d89833a51e66bc86cb907c13fbe    on the founder: that node is not believed any more")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Print an invitation: one line that lets one node join, once
    Invite {
        /// Address of this node's mesh port as the new node reaches it; may be repeated. When it is left out: the one that the running node
        /// listens on or advertises
        #[arg(long = "address", value_name = "IP:PORT")]
        addresses: Vec<SocketAddr>,
        /// How long the invitation is good for
        #[arg(long, default_value = "1h", value_name = "SPAN")]
        expires: Span,
        #[command(flatten)]
        place: Place,
    },
    /// Join the site of an invitation; the inviting node must run, this one must not
    Join {
        /// What `millpond node invite` printed
        token: String,
        /// Name of this node, for people
        #[arg(long, value_name = "NAME")]
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Forget the membership; the journal stays, and the node can join again
    Leave {
        #[command(flatten)]
        place: Place,
    },
    /// Believe a node no more: its connections are closed, and its certificate is not renewed
    Revoke {
        /// Origin of that node, as `millpond node show` prints it there
        #[arg(value_parser = origin)]
        origin: Origin,
        #[command(flatten)]
        place: Place,
    },
    /// Show who this node is
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Data directory of the node
    #[arg(long, default_value = "millpond-data", value_name = "DIR")]
    data: PathBuf,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Invite { addresses, expires, place } => invite(&place.data, addresses, expires)?,
        What::Join { token, name, place } => join(&place.data, &token, name).await?,
        What::Leave { place } => leave(&place.data)?,
        What::Revoke { origin, place } => revoke(&place.data, origin)?,
        What::Show { json, place } => show(&place.data, json)?,
    }
    Ok(exit::OK)
}

fn invite(data: &Path, mut addresses: Vec<SocketAddr>, expires: Span) -> anyhow::Result<()> {
    let (env, me) = member(data)?;
    if !me.founder {
        let told = Told::new(format!("site {} was not founded on this node", me.site)).failure(Failure::NoInput);
        return Err(told.code("MP0602").hint("invite on the node that has identity/authority.key").into());
    }
    if addresses.is_empty() {
        let running = files::address(env.disk.as_ref()).map_err(identity_told)?;
        addresses.extend(running.filter(|addr| !addr.ip().is_unspecified()));
    }
    if addresses.is_empty() {
        let told = Told::new("it is not known where others reach this node").failure(Failure::BadInput);
        return Err(told
            .hint("say it: --address IP:PORT, or `advertise` in the section [site] of the configuration")
            .into());
    }
    if addresses.len() > identity::ADDRESSES_MAX || addresses.iter().any(|addr| addr.ip().is_unspecified()) {
        let told = Told::new("an invitation names 1 to 16 addresses at which others reach this node");
        return Err(told.hint("for example --address 10.0.0.5:7800, not 0.0.0.0").into());
    }
    let until = env.wall().saturating_add(expires);
    let token = identity::invite(&env, &mut env.rng("invitation"), &me, addresses, until).map_err(identity_told)?;
    eprintln!("For one node of site {}, until {until}. On that node:", me.site);
    eprintln!("  millpond node join --name NAME TOKEN");
    out(format!("{token}\n"))
}

async fn join(data: &Path, token: &str, name: String) -> anyhow::Result<()> {
    let token: Token = token.parse().map_err(|error: BadToken| {
        let told = Told::new("this is no invitation").code("MP0603").failure(Failure::BadInput);
        told.hint("copy the whole line that `millpond node invite` printed").because(error)
    })?;
    let env = World::new(data)?;
    let newcomer = newcomer_of(&env, data, name)?;
    let joined = identity::accept(&env, &identity::provider(), &token, &newcomer).await;
    let me = joined.map_err(|error| enrol_told(error, &token))?;
    out(format!("{}\n", me.origin))?;
    eprintln!("{} is a node of site {} now, with the origin above, until {}.", me.node, me.site, me.expires);
    eprintln!("Next: start it; it finds the others by itself.");
    Ok(())
}

fn leave(data: &Path) -> anyhow::Result<()> {
    let (env, me) = member(data)?;
    if me.founder {
        let told = Told::new(format!("site {} was founded on this node: its authority lives here", me.site));
        return Err(told.hint("to give up the whole site, remove the directory `identity` yourself").into());
    }
    // A running node would go on with what it has read at its start.
    newcomer_of(&env, data, me.node.clone())?;
    files::leave(env.disk.as_ref()).map_err(identity_told)?;
    eprintln!("{} is no node of site {} any more; its journal is untouched.", me.node, me.site);
    eprintln!("If it was stolen or sold: `millpond node revoke {}` on the founder.", me.origin);
    Ok(())
}

fn revoke(data: &Path, origin: Origin) -> anyhow::Result<()> {
    let (env, me) = member(data)?;
    if origin == me.origin {
        return Err(Told::new("a node cannot revoke itself").hint("millpond node leave").into());
    }
    let disk = env.disk.as_ref();
    let mut revoked = files::read_revoked(disk).map_err(identity_told)?;
    revoked.insert(origin);
    files::save_revoked(disk, &revoked).map_err(identity_told)?;
    if me.founder {
        eprintln!("{origin} is revoked; the running node notices within seconds, and tells the others.");
    } else {
        eprintln!("{origin} is revoked on this node alone, which notices within seconds.");
        eprintln!("For the whole site: `millpond node revoke {origin}` on the node at which it was founded.");
    }
    Ok(())
}

fn show(data: &Path, json: bool) -> anyhow::Result<()> {
    let (_, me) = member(data)?;
    let authority: String = me.authority().iter().map(|byte| format!("{byte:02x}")).collect();
    if json {
        let shown = serde_json::json!({
            "origin": me.origin.to_string(), "node": me.node, "site": me.site, "founder": me.founder,
            "incarnation": me.incarnation.0, "authority": authority, "expires": me.expires.to_string(),
            "revoked": me.revoked.iter().map(Origin::to_string).collect::<Vec<_>>(),
        });
        return out(format!("{shown}\n"));
    }
    let mut text = format!("origin       {}\nnode         {}\nsite         {}\n", me.origin, me.node, me.site);
    text.push_str(&format!("incarnation  {}\nauthority    {authority}\n", me.incarnation.0));
    text.push_str(&format!("expires      {}, renewed from {} on\n", me.expires, me.renew_at()));
    if me.founder {
        text.push_str("founder      yes: others join through this node\n");
    }
    for origin in &me.revoked {
        text.push_str(&format!("revoked      {origin}\n"));
    }
    out(text)
}

/// The identity in a data directory; nothing is created by looking.
fn member(data: &Path) -> anyhow::Result<(Env, NodeIdentity)> {
    let none = || {
        let told = Told::new(format!("the node in {} is no member of a site", data.display()));
        told.code("MP0602")
            .failure(Failure::NoInput)
            .hint("found one with `millpond site init NAME --node NAME`, or join one with `millpond node join TOKEN --name NAME`")
    };
    if !data.is_dir() {
        return Err(none().into());
    }
    let env = World::new(data)?;
    let identity = NodeIdentity::load(env.disk.as_ref()).map_err(identity_told)?;
    Ok((env, identity.ok_or_else(none)?))
}

/// The node that is about to become a member: that of the store, if there is one. A store in use belongs to a node that runs.
pub fn newcomer_of(env: &Env, data: &Path, node: String) -> anyhow::Result<Newcomer> {
    if !is_name(&node) {
        let told = Told::new(format!("{node:?} cannot be the name of a node"));
        return Err(told.hint("1 to 64 bytes without control characters, for example press-hall").into());
    }
    if !data.join(STORE_FILE).is_file() {
        let origin = Origin(env.rng("origin").random());
        return Ok(Newcomer { origin, incarnation: Incarnation(0), node });
    }
    let disk = env.disk.clone();
    let open: OpenDevice = Box::new(move || disk.open(STORE_FILE));
    let found = inspect(&open).map_err(|error| store_told("cannot read which node this is", error))?;
    Ok(Newcomer { origin: found.origin, incarnation: Incarnation(found.incarnation.founding().into()), node })
}

pub fn identity_told(error: IdentityError) -> anyhow::Error {
    let told = Told::new("the identity of the node cannot be used");
    let told = match &error {
        IdentityError::Exists { .. } => Told::new("this node is a member of a site already")
            .code("MP0604")
            .hint("`millpond node show` says of which; `millpond node leave` ends it"),
        IdentityError::Disk { error, .. } if error.kind() == io::ErrorKind::StorageFull => told.code("MP0401"),
        _ => told.code("MP0601").failure(Failure::BadInput).hint("restore the directory `identity` from a copy"),
    };
    told.because(error).into()
}

fn enrol_told(error: EnrolError, token: &Token) -> anyhow::Error {
    let addresses: Vec<String> = token.addrs.iter().map(SocketAddr::to_string).collect();
    let refused = |hint: &str| {
        let told = Told::new("the invitation was refused").code("MP0603");
        told.failure(Failure::Refused).hint(hint)
    };
    let told = match error {
        EnrolError::Files(error) => return identity_told(error),
        EnrolError::Refused(Refusal::Expired { .. } | Refusal::UnknownInvitation) => {
            refused("make another one on the founder: millpond node invite")
        }
        EnrolError::Refused(Refusal::OriginTaken { .. }) => {
            refused("was the data directory copied from another node? Each node needs one of its own")
        }
        EnrolError::Refused(_) => refused("the node that invites tells more in its log"),
        EnrolError::Answer(_) => Told::new("the answer to the invitation cannot be used")
            .code("MP0603")
            .failure(Failure::Refused)
            .hint(format!("check the clocks: this one says {}", now_hint())),
        EnrolError::Reach(_) => Told::new("cannot reach the node that invites")
            .code("MP0605")
            .failure(Failure::Unavailable)
            .hint(format!("is it running, and is UDP to {} open from here?", addresses.join(" or "))),
    };
    told.because(error).into()
}

fn now_hint() -> Timestamp {
    World::client().wall()
}

fn origin(text: &str) -> Result<Origin, String> {
    identity::read_origin(text)
        .ok_or_else(|| "an origin has 32 hex digits, as `millpond node show` prints it".to_owned())
}
