//! An identity on disk: `identity/` in the node's data directory.
//!
//! ```text
//! site.crt        certificate of the site's authority (PEM)
//! node.crt        this node's certificate (PEM); written last: without it there is no identity
//! node.key        its key (PEM, PKCS #8)
//! incarnation     the founding of the node's newest store, as a decimal number
//! revoked         origins that are not believed here any more, one per line
//! revoked.signed  those that the authority says, with its signature (MessagePack)
//! seeds           where the node was reached that let this one in, one address per line
//! address         where the running node says that others reach it
//! trusted/NAME.toml   another site: its authority, and what is exchanged with it
//! trusted/NAME.revoked  the nodes that its authority has revoked, with its signature (MessagePack)
//! authority.key   where the site was founded: the key of the authority (PEM, PKCS #8)
//! members         there too: origin, public key and name of each node that was certified, one per line
//! invites/HASH    there too: an invitation by the SHA-256 of its secret; when it expires, in milliseconds since 1970
//! ```
//!
//! Each file has one writer at a time: `members`, `revoked.signed` and `address` the running node, `invites/` and `revoked` the operator's commands, who may work while the
//! node runs; the node reads them again when it needs them and removes invitations that are used.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
};

use millpond_core::{
    ids::{Incarnation, Origin},
    time::Timestamp,
};
use millpond_env::Disk;
use rustls::pki_types::CertificateDer;

use super::{
    NodeIdentity,
    authority::Authority,
    certificate::{BadCertificate, read_origin},
    enrolment::{Effect, Enrolment, Member},
    key::Key,
    pem,
    revocation::Revocations,
};

const SITE: &str = "identity/site.crt";
const NODE: &str = "identity/node.crt";
const NODE_KEY: &str = "identity/node.key";
const INCARNATION: &str = "identity/incarnation";
const REVOKED: &str = "identity/revoked";
const REVOKED_SIGNED: &str = "identity/revoked.signed";
const SEEDS: &str = "identity/seeds";
const ADDRESS: &str = "identity/address";
const AUTHORITY_KEY: &str = "identity/authority.key";
const MEMBERS: &str = "identity/members";
const INVITES: &str = "identity/invites";

/// Why there is no identity, though there are files of one.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{path} cannot be read or written")]
    Disk {
        path: &'static str,
        #[source]
        error: io::Error,
    },
    #[error("{path} is missing")]
    Missing { path: &'static str },
    #[error("{path} is damaged: {why}")]
    Damaged { path: &'static str, why: String },
    #[error("{path} cannot be used: {error}")]
    Certificate { path: &'static str, error: BadCertificate },
    /// Nothing was changed.
    #[error("this node belongs to site {site} already")]
    Exists { site: String },
}

pub(super) fn failed(path: &'static str) -> impl Fn(io::Error) -> IdentityError {
    move |error| IdentityError::Disk { path, error }
}

pub(super) fn damaged(path: &'static str, why: impl Into<String>) -> IdentityError {
    IdentityError::Damaged { path, why: why.into() }
}

impl NodeIdentity {
    /// The identity in the data directory; `None` when the node has not joined a site. Blocks.
    ///
    /// # Errors
    /// When the files do not make an identity.
    pub fn load(disk: &dyn Disk) -> Result<Option<NodeIdentity>, IdentityError> {
        let Some(node) = read(disk, NODE)? else { return Ok(None) };
        let certificate = certificate(NODE, &node)?;
        let authority = load_site(disk)?.ok_or(IdentityError::Missing { path: SITE })?;
        let key = load_key(disk, NODE_KEY)?.ok_or(IdentityError::Missing { path: NODE_KEY })?;
        let incarnation = incarnation(disk)?;
        let identity = NodeIdentity::new(certificate, &key, authority, incarnation);
        let mut identity = identity.map_err(|error| IdentityError::Certificate { path: NODE, error })?;
        identity.revoked = all_revoked(disk)?;
        identity.first_seeds =
            text(disk, SEEDS)?.unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect();
        identity.founder = read(disk, AUTHORITY_KEY)?.is_some();
        Ok(Some(identity))
    }
}

/// What a node writes when it has become a member.
pub(super) struct Membership<'a> {
    pub certificate: &'a [u8],
    pub authority: &'a [u8],
    pub revoked: &'a BTreeSet<Origin>,
    pub incarnation: Incarnation,
    pub first_seeds: &'a [SocketAddr],
}

pub(super) fn save_membership(disk: &dyn Disk, membership: &Membership<'_>) -> Result<(), IdentityError> {
    disk.write(SITE, pem::encode(pem::CERTIFICATE, membership.authority).as_bytes()).map_err(failed(SITE))?;
    disk.write(INCARNATION, membership.incarnation.0.to_string().as_bytes()).map_err(failed(INCARNATION))?;
    save_revoked(disk, membership.revoked)?;
    let seeds: String = membership.first_seeds.iter().map(|addr| format!("{addr}\n")).collect();
    disk.write(SEEDS, seeds.as_bytes()).map_err(failed(SEEDS))?;
    save_certificate(disk, membership.certificate)
}

pub(super) fn save_certificate(disk: &dyn Disk, certificate: &[u8]) -> Result<(), IdentityError> {
    disk.write(NODE, pem::encode(pem::CERTIFICATE, certificate).as_bytes()).map_err(failed(NODE))
}

pub(super) fn load_node_key(disk: &dyn Disk) -> Result<Option<Key>, IdentityError> {
    load_key(disk, NODE_KEY)
}

pub(super) fn save_node_key(disk: &dyn Disk, key: &Key) -> Result<(), IdentityError> {
    disk.write(NODE_KEY, pem::encode(pem::PRIVATE_KEY, key.pkcs8().secret_pkcs8_der()).as_bytes())
        .map_err(failed(NODE_KEY))
}

/// The authority of a new site. Blocks.
///
/// # Errors
/// When the disk refuses.
pub fn save_authority(disk: &dyn Disk, key: &Key, members: &BTreeMap<Origin, Member>) -> Result<(), IdentityError> {
    let pem = pem::encode(pem::PRIVATE_KEY, key.pkcs8().secret_pkcs8_der());
    disk.write(AUTHORITY_KEY, pem.as_bytes()).map_err(failed(AUTHORITY_KEY))?;
    save_members(disk, members)
}

/// Writes an identity that somebody else has made, for a node that has had `stores` stores so far. Blocks.
///
/// # Errors
/// When the disk refuses.
pub fn install(
    disk: &dyn Disk,
    key: &Key,
    certificate: &[u8],
    authority: &[u8],
    stores: Incarnation,
) -> Result<(), IdentityError> {
    save_node_key(disk, key)?;
    let revoked = &read_revoked(disk)?;
    save_membership(disk, &Membership { certificate, authority, revoked, incarnation: stores, first_seeds: &[] })
}

/// What is needed to certify others; `None` where the site was not founded. Blocks.
///
/// # Errors
/// When the files cannot be read.
pub fn load_enrolment(disk: &dyn Disk) -> Result<Option<Enrolment>, IdentityError> {
    let Some(key) = load_key(disk, AUTHORITY_KEY)? else { return Ok(None) };
    let certificate = load_site(disk)?.ok_or(IdentityError::Missing { path: SITE })?;
    let authority = Authority::load(certificate, &key);
    let authority = authority.map_err(|error| IdentityError::Certificate { path: SITE, error })?;
    let (members, invitations) = (load_members(disk)?, load_invitations(disk)?);
    Ok(Some(Enrolment { authority, members, invitations, revoked: all_revoked(disk)? }))
}

/// Makes durable what an [`Enrolment`] has decided.
///
/// # Errors
/// When the disk refuses; the answer must not leave then.
pub(super) fn apply(disk: &dyn Disk, enrolment: &Enrolment, effects: &[Effect]) -> Result<(), IdentityError> {
    for effect in effects {
        match effect {
            Effect::RemoveInvitation(hash) => disk.remove(&invitation(hash)).map_err(failed(INVITES))?,
            Effect::SaveMembers => save_members(disk, &enrolment.members)?,
        }
    }
    Ok(())
}

/// Keeps an invitation for the running node. Blocks.
///
/// # Errors
/// When the disk refuses.
pub fn save_invitation(disk: &dyn Disk, hash: &[u8; 32], expires: Timestamp) -> Result<(), IdentityError> {
    disk.write(&invitation(hash), expires.as_millis().to_string().as_bytes()).map_err(failed(INVITES))
}

fn load_invitations(disk: &dyn Disk) -> Result<BTreeMap<[u8; 32], Timestamp>, IdentityError> {
    let mut invitations = BTreeMap::new();
    for name in disk.list(INVITES).map_err(failed(INVITES))? {
        // Others' files, such as those that a write has not finished, are none of ours.
        let Some(hash) = hex(&name) else { continue };
        let Some(text) = disk.read(&invitation(&hash)).map_err(failed(INVITES))? else { continue };
        let expires = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
        invitations.insert(hash, Timestamp::from_millis(expires.ok_or_else(|| damaged(INVITES, "not a time"))?));
    }
    Ok(invitations)
}

fn invitation(hash: &[u8; 32]) -> String {
    format!("{INVITES}/{}", to_hex(hash))
}

fn load_members(disk: &dyn Disk) -> Result<BTreeMap<Origin, Member>, IdentityError> {
    let text = text(disk, MEMBERS)?.unwrap_or_default();
    let member = |line: &str| {
        let (origin, rest) = line.split_once(' ')?;
        let (public_key, node) = rest.split_once(' ')?;
        Some((read_origin(origin)?, Member { public_key: hex(public_key)?, node: node.to_owned() }))
    };
    text.lines().map(|line| member(line).ok_or_else(|| damaged(MEMBERS, "not origin, key and name"))).collect()
}

fn save_members(disk: &dyn Disk, members: &BTreeMap<Origin, Member>) -> Result<(), IdentityError> {
    let line =
        |(origin, member): (&Origin, &Member)| format!("{origin} {} {}\n", to_hex(&member.public_key), member.node);
    let text: String = members.iter().map(line).collect();
    disk.write(MEMBERS, text.as_bytes()).map_err(failed(MEMBERS))
}

/// Blocks.
///
/// # Errors
/// When the file cannot be read, or holds something else.
pub fn read_revoked(disk: &dyn Disk) -> Result<BTreeSet<Origin>, IdentityError> {
    let text = text(disk, REVOKED)?.unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| read_origin(line).ok_or_else(|| damaged(REVOKED, format!("{line:?} is not an origin")))).collect()
}

/// Blocks.
///
/// # Errors
/// When the disk refuses.
pub fn save_revoked(disk: &dyn Disk, revoked: &BTreeSet<Origin>) -> Result<(), IdentityError> {
    let text: String = revoked.iter().map(|origin| format!("{origin}\n")).collect();
    disk.write(REVOKED, text.as_bytes()).map_err(failed(REVOKED))
}

/// The list that the authority signed, as it came here last. Blocks.
///
/// # Errors
/// When the file cannot be read, or is not one of this site's authority.
pub fn signed_revocations(disk: &dyn Disk) -> Result<Revocations, IdentityError> {
    let Some(bytes) = read(disk, REVOKED_SIGNED)? else { return Ok(Revocations::default()) };
    let authority = load_site(disk)?.ok_or(IdentityError::Missing { path: SITE })?;
    Revocations::read(&bytes, &authority).ok_or_else(|| damaged(REVOKED_SIGNED, "not signed by the site's authority"))
}

/// Blocks.
///
/// # Errors
/// When the disk refuses.
pub fn save_signed_revocations(disk: &dyn Disk, list: &Revocations) -> Result<(), IdentityError> {
    disk.write(REVOKED_SIGNED, &list.encode()).map_err(failed(REVOKED_SIGNED))
}

/// All who are not believed here: by this node's operator, or by the authority. Blocks.
///
/// # Errors
/// When a file cannot be read, or holds something else.
pub fn all_revoked(disk: &dyn Disk) -> Result<BTreeSet<Origin>, IdentityError> {
    let mut all = read_revoked(disk)?;
    all.extend(signed_revocations(disk)?.origins());
    Ok(all)
}

/// Where the site was founded: signs what the operator has revoked there, and `others` that the authority had signed before; the list, when
/// it is another one than before. Blocks.
///
/// # Errors
/// When the disk refuses.
pub fn sign_revocations(disk: &dyn Disk, others: &BTreeSet<Origin>) -> Result<Option<Revocations>, IdentityError> {
    let Some(key) = load_key(disk, AUTHORITY_KEY)? else { return Ok(None) };
    let signed = signed_revocations(disk)?;
    let all: BTreeSet<Origin> =
        read_revoked(disk)?.into_iter().chain(signed.origins()).chain(others.iter().copied()).collect();
    if all.len() == signed.len() {
        return Ok(None);
    }
    let list = Revocations::sign(&all, &key);
    save_signed_revocations(disk, &list)?;
    Ok(Some(list))
}

/// Where the running node says that others reach it; `None` before its first start. Blocks.
///
/// # Errors
/// When the file cannot be read, or holds something else.
pub fn address(disk: &dyn Disk) -> Result<Option<SocketAddr>, IdentityError> {
    let Some(text) = text(disk, ADDRESS)? else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| damaged(ADDRESS, "not an address"))
}

/// Blocks.
///
/// # Errors
/// When the disk refuses.
pub fn save_address(disk: &dyn Disk, addr: SocketAddr) -> Result<(), IdentityError> {
    if address(disk).is_ok_and(|known| known == Some(addr)) {
        return Ok(());
    }
    disk.write(ADDRESS, addr.to_string().as_bytes()).map_err(failed(ADDRESS))
}

/// The founding of the node's newest store; 0 for one that it had before it was enrolled.
///
/// # Errors
/// When the file cannot be read, or holds something else.
pub fn incarnation(disk: &dyn Disk) -> Result<Incarnation, IdentityError> {
    let Some(text) = text(disk, INCARNATION)? else { return Ok(Incarnation(0)) };
    text.trim().parse().map(Incarnation).map_err(|_| damaged(INCARNATION, "not a number"))
}

/// The incarnation of a store that is about to be founded; durable on return. Blocks.
///
/// # Errors
/// When the disk refuses; no store may be founded then.
pub fn raise_incarnation(disk: &dyn Disk) -> Result<Incarnation, IdentityError> {
    let next = Incarnation(incarnation(disk)?.0.saturating_add(1));
    disk.write(INCARNATION, next.0.to_string().as_bytes()).map_err(failed(INCARNATION))?;
    Ok(next)
}

/// Takes the membership away; the store and the incarnation stay, so that the node can join again. Blocks.
///
/// # Errors
/// When the disk refuses.
pub fn leave(disk: &dyn Disk) -> Result<(), IdentityError> {
    for path in [NODE, NODE_KEY, SITE, REVOKED, REVOKED_SIGNED, SEEDS, ADDRESS] {
        match disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(path)(error)),
            _ => {}
        }
    }
    Ok(())
}

fn load_site(disk: &dyn Disk) -> Result<Option<CertificateDer<'static>>, IdentityError> {
    read(disk, SITE)?.map(|pem| certificate(SITE, &pem)).transpose()
}

fn load_key(disk: &dyn Disk, path: &'static str) -> Result<Option<Key>, IdentityError> {
    let Some(pem) = read(disk, path)? else { return Ok(None) };
    let der = pem::private_key(&pem).ok_or_else(|| damaged(path, "not a key in PEM"))?;
    Key::from_pkcs8(der.secret_pkcs8_der()).map(Some).ok_or_else(|| damaged(path, "not a key of Ed25519"))
}

fn certificate(path: &'static str, pem: &[u8]) -> Result<CertificateDer<'static>, IdentityError> {
    pem::certificate(pem).ok_or_else(|| damaged(path, "not a certificate in PEM"))
}

fn read(disk: &dyn Disk, path: &'static str) -> Result<Option<Vec<u8>>, IdentityError> {
    disk.read(path).map_err(failed(path))
}

fn text(disk: &dyn Disk, path: &'static str) -> Result<Option<String>, IdentityError> {
    let Some(bytes) = read(disk, path)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| damaged(path, "not text"))
}

fn to_hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let (high, low) = (read_origin(text.get(..32)?)?, read_origin(text.get(32..)?)?);
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&high.0);
    bytes[16..].copy_from_slice(&low.0);
    Some(bytes)
}
