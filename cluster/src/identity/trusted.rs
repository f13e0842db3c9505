//! Other sites with which this one exchanges records: `identity/trusted/NAME.toml`.
//!
//! ```toml
//! site = "plant-8"
//! classes = ["alert", "pane"]         # what its nodes may have of this site's records,
//! devices = ["press-*", "oven-*"]     # and of which devices; default: all
//! addresses = ["10.1.0.5:7800"]       # where this node fetches that site's records; default: it does not
//! take = ["alert", "pane"]            # of which classes; default: all that the other site lets it have
//! uplink = ["10.9.0.5:7800"]          # where this node delivers its site's records, when the other one is a cloud
//! authority = """-----BEGIN CERTIFICATE-----…"""
//! secret = "9f2c…"                    # what tokens are made with: 64 hexadecimal digits that nobody else may know
//!
//! [budget]                            # what the line of the uplink may be used for; default: whatever it carries
//! rate = 50_000                       # bytes a second,
//! per_day = 500_000_000               # and a day: when they are used up only alerts and state leave
//! metered = 2.0                       # how many bytes a byte counts for
//! schedule = ["22:00-05:30"]          # when events from before may leave; `offset` says how far the clock is ahead of UTC
//!
//! [[mask]]                            # of what may leave, this leaves only in part; any number of them
//! devices = ["press-*"]               # default: all
//! metrics = ["operator*"]
//! how = "token"                       # or "drop", or "round" with `digits` behind the point
//! device = true                       # the names of these devices are replaced as well; default: they are not
//! ```
//!
//! What a mask does is told in [`mask`](millpond_proto::sites::mask). Nodes of one site that say the same tokens have the same secret.

use millpond_core::{budget::BudgetSpec, record::Class};
use millpond_env::Disk;
use millpond_proto::sites::{
    mask::{Mask, Masks},
    terms::{ALL_DEVICES, Terms},
};
use rand::{Rng, rngs::StdRng};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{
    certificate::site_of,
    enrolment::is_name,
    files::{IdentityError, damaged, failed},
    pem,
    revocation::Revocations,
};

const TRUSTED: &str = "identity/trusted";
/// A secret that was never drawn.
const NO_SECRET: [u8; 32] = [0; 32];

/// A site whose nodes are believed, and what is exchanged with them.
#[derive(Clone, Debug, PartialEq)]
pub struct Trusted {
    pub site: String,
    /// The certificate of its authority.
    pub authority: CertificateDer<'static>,
    /// What its nodes may have.
    pub terms: Terms,
    /// Nodes of it that are asked, as `host:port`.
    pub addresses: Vec<String>,
    /// What they are asked for.
    pub take: Vec<Class>,
    /// Nodes of it to which this site's records are delivered as far as the terms go, as `host:port`; the first that can be reached.
    pub uplink: Vec<String>,
    /// What the line there may be used for.
    pub budget: Option<BudgetSpec>,
}

/// As it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    site: String,
    classes: Vec<Class>,
    #[serde(default = "all_devices")]
    devices: Vec<String>,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default = "all_classes")]
    take: Vec<Class>,
    #[serde(default)]
    uplink: Vec<String>,
    authority: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// Tables come last in TOML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    budget: Option<BudgetSpec>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mask: Vec<Mask>,
}

fn all_devices() -> Vec<String> {
    vec![ALL_DEVICES.to_owned()]
}

fn all_classes() -> Vec<Class> {
    Class::ALL.to_vec()
}

impl Trusted {
    /// The site of a certificate in PEM, of which nothing is fetched yet.
    ///
    /// # Errors
    /// When it is not that of an authority, or names a site that no file can be named after.
    pub fn new(authority: &str, terms: Terms) -> Result<Trusted, IdentityError> {
        let bad = || damaged(TRUSTED, "not the certificate of a site's authority in PEM");
        let authority = pem::certificate(authority.as_bytes()).ok_or_else(bad)?;
        let site = site_of(&authority).map_err(|_| bad())?;
        if !is_file_name(&site) {
            return Err(damaged(TRUSTED, format!("{site:?} cannot be the name of a file")));
        }
        Ok(Trusted {
            site,
            authority,
            terms,
            addresses: Vec::new(),
            take: all_classes(),
            uplink: Vec::new(),
            budget: None,
        })
    }
}

/// Draws what tokens are made with, where the masks need it and have none: the same site goes on with `known`, so that its tokens stay the
/// same.
pub fn draw_secret(masks: &mut Masks, known: Option<&Masks>, rng: &mut StdRng) {
    masks.secret = known.map_or(NO_SECRET, |known| known.secret);
    if masks.has_tokens() && masks.secret == NO_SECRET {
        rng.fill_bytes(&mut masks.secret);
    }
}

/// Letters, digits, `-`, `_` and `.`, and not a dot first.
pub fn is_file_name(name: &str) -> bool {
    is_name(name)
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Whether it can be an address of a node: `host:port`.
pub fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn path_of(site: &str) -> String {
    format!("{TRUSTED}/{site}.toml")
}

fn path_of_revoked(site: &str) -> String {
    format!("{TRUSTED}/{site}.revoked")
}

/// Keeps a site, in the place of what was there under its name. Blocks.
///
/// # Errors
/// When the disk refuses.
pub fn save_trusted(disk: &dyn Disk, trusted: &Trusted) -> Result<(), IdentityError> {
    let text = written(trusted)?;
    disk.write(&path_of(&trusted.site), text.as_bytes()).map_err(failed(TRUSTED))
}

/// Forgets a site; `false` when there is none of this name. Blocks.
///
/// # Errors
/// When the disk refuses.
pub fn remove_trusted(disk: &dyn Disk, site: &str) -> Result<bool, IdentityError> {
    let file = format!("{site}.toml");
    if !is_file_name(site) || !disk.list(TRUSTED).map_err(failed(TRUSTED))?.contains(&file) {
        return Ok(false);
    }
    disk.remove(&path_of(site)).map_err(failed(TRUSTED)).map(|()| true)
}

/// Blocks.
///
/// # Errors
/// When a file cannot be read, or holds something else.
pub fn load_trusted(disk: &dyn Disk) -> Result<Vec<Trusted>, IdentityError> {
    let mut all = Vec::new();
    for name in disk.list(TRUSTED).map_err(failed(TRUSTED))?.iter().filter(|name| name.ends_with(".toml")) {
        let Some(bytes) = disk.read(&format!("{TRUSTED}/{name}")).map_err(failed(TRUSTED))? else { continue };
        all.push(parse(name, &bytes)?);
    }
    Ok(all)
}

fn written(trusted: &Trusted) -> Result<String, IdentityError> {
    let Trusted { site, authority, terms, addresses, take, uplink, budget } = trusted.clone();
    let authority = pem::encode(pem::CERTIFICATE, &authority);
    let Terms { classes, devices, masks: Masks { masks: mask, secret } } = terms;
    let secret = (secret != NO_SECRET).then(|| secret.iter().map(|byte| format!("{byte:02x}")).collect());
    let file = File { classes, devices, addresses, take, uplink, authority, site, secret, budget, mask };
    toml::to_string(&file).map_err(|error| damaged(TRUSTED, error.to_string()))
}

fn parse(name: &str, bytes: &[u8]) -> Result<Trusted, IdentityError> {
    let wrong = |why: String| damaged(TRUSTED, format!("{name}: {why}"));
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is not text".to_owned()))?;
    let file: File = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
    if let Some(problem) = file.mask.iter().find_map(Mask::problem) {
        return Err(wrong(problem));
    }
    let secret = match &file.secret {
        Some(text) => secret_of(text).ok_or_else(|| wrong("`secret` is not 64 hexadecimal digits".to_owned()))?,
        None => NO_SECRET,
    };
    let masks = Masks { masks: file.mask, secret };
    // Tokens that anybody can make hide nothing.
    if masks.has_tokens() && secret == NO_SECRET {
        return Err(wrong("a mask with how = \"token\" needs a `secret`; `millpond site trust` makes one".to_owned()));
    }
    let trusted = Trusted::new(&file.authority, Terms { classes: file.classes, devices: file.devices, masks })?;
    if trusted.site != file.site || format!("{}.toml", file.site) != name {
        return Err(wrong(format!("the certificate is that of {}", trusted.site)));
    }
    if let Some(address) = file.addresses.iter().chain(&file.uplink).find(|address| !is_address(address)) {
        return Err(wrong(format!("{address:?} is no address such as 10.1.0.5:7800")));
    }
    if let Some(problem) = file.budget.iter().flat_map(BudgetSpec::problems).next() {
        return Err(wrong(format!("budget: {problem}")));
    }
    let File { addresses, take, uplink, budget, .. } = file;
    Ok(Trusted { addresses, take, uplink, budget, ..trusted })
}

fn secret_of(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let bytes = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

/// The longest list of revoked nodes that the site's authority has signed, as far as it came here. Blocks.
pub(crate) fn load_revoked_of(disk: &dyn Disk, trusted: &Trusted) -> Revocations {
    let read = disk.read(&path_of_revoked(&trusted.site)).ok().flatten();
    read.and_then(|bytes| Revocations::read(&bytes, &trusted.authority)).unwrap_or_default()
}

/// Blocks.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn save_revoked_of(disk: &dyn Disk, site: &str, list: &Revocations) -> Result<(), IdentityError> {
    disk.write(&path_of_revoked(site), &list.encode()).map_err(failed(TRUSTED))
}

#[cfg(test)]
mod tests {
    use millpond_core::time::Timestamp;
    use millpond_proto::sites::mask::How;
    use rand::SeedableRng;

    use super::*;
    use crate::identity::{Authority, Key};

    fn bakery() -> Trusted {
        let authority = Authority::found("bakery", &Key::new([1; 32]), Timestamp(1_800_000_000_000_000_000));
        let mask = |how, digits| Mask {
            devices: vec!["oven-1*".to_owned()],
            metrics: vec!["operator*".to_owned()],
            how,
            digits,
            device: how == How::Token,
        };
        let masks = Masks { masks: vec![mask(How::Token, None), mask(How::Round, Some(-1))], secret: [0xa5; 32] };
        let terms = Terms { classes: vec![Class::Pane], devices: vec!["oven-*".to_owned()], masks };
        let (authority, addresses) = (authority.certificate().clone(), vec!["oven.example:7800".to_owned()]);
        Trusted {
            site: "bakery".to_owned(),
            authority,
            terms,
            addresses,
            take: vec![Class::Alert],
            uplink: vec!["10.9.0.5:7800".to_owned()],
            budget: Some(BudgetSpec {
                per_day: Some(500_000_000),
                schedule: vec!["22:00-05:30".to_owned()],
                ..BudgetSpec::default()
            }),
        }
    }

    #[test]
    fn a_trust_file_is_read_as_it_was_written() {
        let text = written(&bakery()).unwrap();
        assert_eq!(parse("bakery.toml", text.as_bytes()).unwrap(), bakery());
    }

    #[test]
    fn a_file_of_a_site_and_its_classes_alone_means_all_devices_and_nothing_fetched() {
        let text = written(&bakery()).unwrap();
        let lines =
            text.lines().filter(|line| !["devices", "addresses", "take"].iter().any(|key| line.starts_with(key)));
        let read = parse("bakery.toml", lines.collect::<Vec<_>>().join("\n").as_bytes()).unwrap();
        assert!(read.terms.has_all_devices() && read.addresses.is_empty());
        assert_eq!(read.take, Class::ALL);
    }

    #[test]
    fn tokens_need_a_secret_and_keep_it() {
        let text = written(&bakery()).unwrap();
        let secret = |text: &str| text.replace(&"a5".repeat(32), "");
        let error = |text: &str| parse("bakery.toml", text.as_bytes()).unwrap_err().to_string();
        assert!(error(&secret(&text)).contains("64 hexadecimal digits"));
        assert!(error(&secret(&text).replace("secret = \"\"", "")).contains("needs a `secret`"));
        assert!(error(&text.replace("digits = -1", "digits = 99")).contains("from -12 to 12"));
        let (mut rng, mut drawn) = (StdRng::seed_from_u64(1), bakery().terms.masks);
        draw_secret(&mut drawn, None, &mut rng);
        assert_ne!(drawn.secret, NO_SECRET);
        let (mut again, known) = (bakery().terms.masks, drawn);
        draw_secret(&mut again, Some(&known), &mut rng);
        assert_eq!(again.secret, known.secret);
        let mut none = Masks::default();
        draw_secret(&mut none, None, &mut rng);
        assert_eq!(none, Masks::default());
    }

    #[test]
    fn a_file_that_says_something_else_is_not_believed() {
        let text = written(&bakery()).unwrap();
        let check = |name: &str, text: &str, words: &str| {
            let error = parse(name, text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check("mill.toml", &text, "the certificate is that of bakery");
        check(
            "bakery.toml",
            &text.replace("site = \"bakery\"", "site = \"mill\""),
            "the certificate is that of bakery",
        );
        check("bakery.toml", &text.replace("oven.example:7800", "oven.example"), "is no address");
        check("bakery.toml", &text.replace("classes", "clases"), "clases");
        check("bakery.toml", &text.replace("pane", "panes"), "panes");
        check("bakery.toml", &text.replace("BEGIN CERTIFICATE", "BEGIN LETTER"), "not the certificate");
    }
}
