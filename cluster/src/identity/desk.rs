//! Both ends of the join protocol: the desk where members are made, and who comes to it.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use millpond_core::{
    ids::{Incarnation, Origin},
    record,
    time::{Span, Timestamp},
};
use millpond_env::{Disk, Env, StdRng};
use rand::Rng;
use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
};

use super::{
    NodeIdentity,
    authority::{Authority, Order},
    certificate::{Subject, fingerprint},
    enrolment::{Answer, Ask, Enrolment, Member, Refusal, ask_renewal},
    files::{self, IdentityError, Membership},
    key::Key,
    token::{Token, hash_secret},
};
use crate::{
    quic::Peers,
    transport::{JoinError, join},
};

/// Answers who wants to become a member: what a node at which a site was founded does with
/// [`Event::Enrol`](crate::transport::Event::Enrol).
pub struct Desk {
    env: Env,
    /// How long the certificates are valid that it issues.
    valid: Span,
    /// One at a time, or two could use the same invitation.
    busy: tokio::sync::Mutex<()>,
}

impl Desk {
    pub fn new(env: Env, valid: Span) -> Desk {
        Desk { env, valid, busy: tokio::sync::Mutex::new(()) }
    }

    /// The answer to a question. What it promises is on disk.
    pub async fn answer(&self, frame: Bytes) -> Bytes {
        let _busy = self.busy.lock().await;
        let (disk, now, valid) = (self.env.disk.clone(), self.env.wall(), self.valid);
        let answer = self.env.unblock(move || answer(disk.as_ref(), now, valid, &frame)).await;
        let failed = || Answer::Refused(Refusal::Failed { why: "it is going down".to_owned() });
        record::encode(&answer.unwrap_or_else(failed)).into()
    }
}

fn answer(disk: &dyn Disk, now: Timestamp, valid: Span, frame: &[u8]) -> Answer {
    let failed = |why: String| Answer::Refused(Refusal::Failed { why });
    let mut enrolment = match files::load_enrolment(disk) {
        Ok(Some(enrolment)) => Enrolment { authority: enrolment.authority.with_validity(valid), ..enrolment },
        Ok(None) => return failed("the site was not founded here".to_owned()),
        Err(error) => return failed(error.to_string()),
    };
    let (answer, effects) = enrolment.handle(now, frame);
    match files::apply(disk, &enrolment, &effects) {
        Ok(()) => answer,
        Err(error) => failed(error.to_string()),
    }
}

/// Why somebody is not a member of a site now.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error("the files of the identity")]
    Files(#[from] IdentityError),
    #[error("the node that invites was not reached")]
    Reach(#[from] JoinError),
    #[error("{0}")]
    Refused(Refusal),
    #[error("the answer makes no sense: {0}")]
    Answer(&'static str),
}

/// Who founds or joins.
#[derive(Clone, Debug)]
pub struct Newcomer {
    /// That of the store, when there is one already.
    pub origin: Origin,
    /// The founding of the store, as a number of stores that were before it; 0 when there is none yet.
    pub incarnation: Incarnation,
    pub node: String,
}

/// Founds a site, with this node as its first member. Blocks.
///
/// # Errors
/// When the node belongs to a site already, or the disk refuses.
pub fn found(env: &Env, site: &str, newcomer: &Newcomer) -> Result<NodeIdentity, IdentityError> {
    let disk = env.disk.as_ref();
    if let Some(there) = NodeIdentity::load(disk)? {
        return Err(IdentityError::Exists { site: there.site });
    }
    let mut rng = env.rng("identity");
    let (authority_key, key) = (Key::random(&mut rng), Key::random(&mut rng));
    let authority = Authority::found(site, &authority_key, env.wall());
    let (origin, public_key) = (newcomer.origin, key.public());
    let order = Order { origin, node: &newcomer.node, public_key, now: env.wall() };
    let certificate = authority.issue(&order);
    files::save_node_key(disk, &key)?;
    let member = Member { public_key, node: newcomer.node.clone() };
    files::save_authority(disk, &authority_key, &[(origin, member)].into())?;
    let (authority, revoked) = (authority.certificate(), &BTreeSet::new());
    let incarnation = newcomer.incarnation;
    files::save_membership(
        disk,
        &Membership { certificate: &certificate, authority, revoked, incarnation, first_seeds: &[] },
    )?;
    NodeIdentity::load(disk)?.ok_or(IdentityError::Missing { path: "identity/node.crt" })
}

/// Makes an invitation to the site that was founded here, and keeps what the running node needs to know of it. The secret is drawn from
/// `rng`. Blocks.
///
/// # Errors
/// When the disk refuses.
pub fn invite(
    env: &Env,
    rng: &mut StdRng,
    identity: &NodeIdentity,
    addrs: Vec<SocketAddr>,
    expires: Timestamp,
) -> Result<Token, IdentityError> {
    let mut secret = [0; 16];
    rng.fill_bytes(&mut secret);
    files::save_invitation(env.disk.as_ref(), &hash_secret(&secret), expires)?;
    Ok(Token { addrs, authority: identity.authority(), secret, expires_ms: expires.as_millis() })
}

/// Becomes a member of the site of an invitation. The key is made and kept before the question leaves: who asks again after a lost answer
/// asks as the same node.
///
/// # Errors
/// When this node belongs to a site already, cannot reach the other one, or is refused.
pub async fn accept(
    env: &Env,
    provider: &Arc<CryptoProvider>,
    token: &Token,
    newcomer: &Newcomer,
) -> Result<NodeIdentity, EnrolError> {
    let key = blocking(env, |env| {
        if let Some(there) = NodeIdentity::load(env.disk.as_ref())? {
            return Err(IdentityError::Exists { site: there.site });
        }
        let disk = env.disk.as_ref();
        if let Some(key) = files::load_node_key(disk)? {
            return Ok(key);
        }
        let key = Key::random(&mut env.rng("identity"));
        files::save_node_key(disk, &key)?;
        Ok(key)
    })
    .await?;
    let (origin, node) = (newcomer.origin, newcomer.node.clone());
    let ask = Ask::Join { secret: token.secret, public_key: key.public(), origin, node };
    let answer = join(env, "join", provider, &token.addrs, token.authority, record::encode(&ask).into()).await?;
    let welcome = check(env, provider, &answer, token.authority, origin, &key)?;
    let (incarnation, first_seeds) = (newcomer.incarnation, token.addrs.clone());
    blocking(env, move |env| {
        let Welcome { certificate, authority, revoked } = &welcome;
        let membership = Membership { certificate, authority, revoked, incarnation, first_seeds: &first_seeds };
        files::save_membership(env.disk.as_ref(), &membership)
    })
    .await?;
    load(env).await
}

/// Renews the certificate, also when it has expired, at any of these addresses where the site was founded. The key stays.
///
/// # Errors
/// When none of them answers, or this node is refused.
pub async fn renew(
    env: &Env,
    purpose: &str,
    provider: &Arc<CryptoProvider>,
    addrs: &[SocketAddr],
    identity: &NodeIdentity,
) -> Result<NodeIdentity, EnrolError> {
    let no_key = || EnrolError::Files(IdentityError::Missing { path: "identity/node.key" });
    let key = blocking(env, |env| files::load_node_key(env.disk.as_ref())).await?.ok_or_else(no_key)?;
    let [own, authority] = identity.chain.as_slice() else { return Err(EnrolError::Answer("no certificate")) };
    let (ask, authority) = (record::encode(&ask_renewal(own, &key)), fingerprint(authority));
    let answer = join(env, purpose, provider, addrs, authority, ask.into()).await?;
    let welcome = check(env, provider, &answer, authority, identity.origin, &key)?;
    blocking(env, move |env| files::save_certificate(env.disk.as_ref(), &welcome.certificate)).await?;
    load(env).await
}

/// Renews the certificate of the node at which the site was founded, which needs nobody for it; the new one is `valid` for so long. Blocks.
///
/// # Errors
/// When the site was not founded here, or the disk refuses.
pub fn renew_founder(env: &Env, valid: Span) -> Result<NodeIdentity, IdentityError> {
    let disk = env.disk.as_ref();
    let missing = |path| move || IdentityError::Missing { path };
    let enrolment = files::load_enrolment(disk)?.ok_or_else(missing("identity/authority.key"))?;
    let identity = NodeIdentity::load(disk)?.ok_or_else(missing("identity/node.crt"))?;
    let key = files::load_node_key(disk)?.ok_or_else(missing("identity/node.key"))?;
    let (origin, node) = (identity.origin, identity.node.as_str());
    let order = Order { origin, node, public_key: key.public(), now: env.wall() };
    files::save_certificate(disk, &enrolment.authority.with_validity(valid).issue(&order))?;
    NodeIdentity::load(disk)?.ok_or_else(missing("identity/node.crt"))
}

struct Welcome {
    certificate: Bytes,
    authority: Bytes,
    revoked: BTreeSet<Origin>,
}

/// What was answered is checked as a peer's certificate will be.
fn check(
    env: &Env,
    provider: &CryptoProvider,
    answer: &[u8],
    authority_hash: [u8; 32],
    origin: Origin,
    key: &Key,
) -> Result<Welcome, EnrolError> {
    let answer = record::decode(answer).map_err(|_| EnrolError::Answer("it cannot be read"))?;
    let (certificate, authority, revoked) = match answer {
        Answer::Welcome { certificate, authority, revoked } => (certificate, authority, revoked),
        Answer::Refused(refusal) => return Err(EnrolError::Refused(refusal)),
    };
    if fingerprint(&authority) != authority_hash {
        return Err(EnrolError::Answer("it names another authority"));
    }
    let own = CertificateDer::from(certificate.to_vec());
    let subject = Subject::read(&own).map_err(|_| EnrolError::Answer("the certificate cannot be read"))?;
    if subject.origin != origin || subject.public_key != key.public() {
        return Err(EnrolError::Answer("the certificate is that of another node"));
    }
    let mut roots = RootCertStore::empty();
    let unusable = |_| EnrolError::Answer("the authority is none");
    roots.add(CertificateDer::from(authority.to_vec())).map_err(unusable)?;
    let seconds = (env.wall().as_millis() / 1000).max(0) as u64;
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let checked = Peers::new(Arc::new(roots), provider, true).check(&[own], now);
    checked.map_err(|_| EnrolError::Answer("the certificate is not valid now: is the clock right?"))?;
    Ok(Welcome { certificate, authority, revoked: revoked.into_iter().collect() })
}

async fn load(env: &Env) -> Result<NodeIdentity, EnrolError> {
    let identity = blocking(env, |env| NodeIdentity::load(env.disk.as_ref())).await?;
    identity.ok_or(EnrolError::Files(IdentityError::Missing { path: "identity/node.crt" }))
}

async fn blocking<T: Send + 'static>(
    env: &Env,
    job: impl FnOnce(&Env) -> Result<T, IdentityError> + Send + 'static,
) -> Result<T, EnrolError> {
    let inside = env.clone();
    let done = env.unblock(move || job(&inside)).await;
    done.ok_or(EnrolError::Answer("the node is going down"))?.map_err(EnrolError::Files)
}
