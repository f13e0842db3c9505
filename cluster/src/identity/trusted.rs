//! Other sites with which this one exchanges something: `identity/trusted/NAME.toml`.

use millpond_core::record::Class;
use millpond_env::Disk;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{
    certificate::site_of,
    enrolment::is_name,
    files::{IdentityError, damaged, failed},
    pem,
};

const TRUSTED: &str = "identity/trusted";

/// A site whose nodes are believed, and what may be exchanged with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    pub site: String,
    /// The certificate of its authority.
    pub authority: CertificateDer<'static>,
    pub classes: Vec<Class>,
}

/// As it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    site: String,
    classes: Vec<Class>,
    authority: String,
}

impl Trusted {
    /// The site of a certificate in PEM.
    ///
    /// # Errors
    /// When it is not that of an authority, or names a site that no file can be named after.
    pub fn new(authority: &str, classes: Vec<Class>) -> Result<Trusted, IdentityError> {
        let bad = || damaged(TRUSTED, "not the certificate of a site's authority in PEM");
        let authority = pem::certificate(authority.as_bytes()).ok_or_else(bad)?;
        let site = site_of(&authority).map_err(|_| bad())?;
        if !is_file_name(&site) {
            return Err(damaged(TRUSTED, format!("{site:?} cannot be the name of a file")));
        }
        Ok(Trusted { site, authority, classes })
    }
}

/// Letters, digits, `-`, `_` and `.`, and not a dot first.
pub fn is_file_name(name: &str) -> bool {
    is_name(name)
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Keeps a site, in the place of what was there under its name. Blocks.
///
/// # Errors
/// When the disk refuses.
pub fn save_trusted(disk: &dyn Disk, trusted: &Trusted) -> Result<(), IdentityError> {
    let authority = pem::encode(pem::CERTIFICATE, &trusted.authority);
    let file = File { site: trusted.site.clone(), classes: trusted.classes.clone(), authority };
    let text = toml::to_string(&file).map_err(|error| damaged(TRUSTED, error.to_string()))?;
    disk.write(&format!("{TRUSTED}/{}.toml", trusted.site), text.as_bytes()).map_err(failed(TRUSTED))
}

/// Blocks.
///
/// # Errors
/// When a file cannot be read, or holds something else.
pub fn load_trusted(disk: &dyn Disk) -> Result<Vec<Trusted>, IdentityError> {
    let mut all = Vec::new();
    for name in disk.list(TRUSTED).map_err(failed(TRUSTED))?.iter().filter(|name| name.ends_with(".toml")) {
        let Some(bytes) = disk.read(&format!("{TRUSTED}/{name}")).map_err(failed(TRUSTED))? else { continue };
        let text = String::from_utf8(bytes).map_err(|_| damaged(TRUSTED, format!("{name} is not text")))?;
        let file: File = toml::from_str(&text).map_err(|error| damaged(TRUSTED, format!("{name}: {error}")))?;
        let trusted = Trusted::new(&file.authority, file.classes)?;
        if trusted.site != file.site {
            return Err(damaged(TRUSTED, format!("{name}: the certificate is that of {}", trusted.site)));
        }
        all.push(trusted);
    }
    Ok(all)
}
