//! What somebody without a certificate may say, and what is read of certificates and of files that people carry from site to site: tokens,
//! questions and answers, lists of the revoked, trust files, identities. Whatever the bytes, nobody panics, and nobody gets a certificate.
#![no_main]

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{LazyLock, Mutex},
};

use base64ct::{Base64UrlUnpadded, Encoding};
use libfuzzer_sys::fuzz_target;
use millpond_cluster::identity::{
    Answer, Ask, Authority, Enrolment, Key, Member, NodeIdentity, Revocations, Subject, Terms, Token, Trusted, files,
    fingerprint, load_trusted, read_origin, save_trusted,
};
use millpond_core::{
    ids::Origin,
    record::{self, Class},
    time::Timestamp,
};
use millpond_env::{BlockDevice, Disk, DiskSpace};
use rustls_pki_types::CertificateDer;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000_000);
const SECRET: [u8; 16] = [7; 16];
/// In its place in a trust file stands the certificate of an authority.
const AUTHORITY: &str = "@AUTHORITY@";

static CERTIFICATE: LazyLock<CertificateDer<'static>> = LazyLock::new(|| authority().certificate().clone());
/// As it stands in a trust file, with its quotes.
static PEM: LazyLock<String> = LazyLock::new(|| {
    let (terms, take) = (Terms { classes: vec![Class::Pane], devices: Vec::new(), ..Terms::default() }, vec![Class::Alert]);
    let addresses = vec!["oven.example:7800".to_owned()];
    let disk = Files::default();
    let (site, authority) = ("bakery".to_owned(), CERTIFICATE.clone());
    let trusted = Trusted { site, authority, terms, addresses, take, uplink: Vec::new(), budget: None };
    save_trusted(&disk, &trusted).expect("it is written");
    let files = disk.0.into_inner().expect("nobody failed");
    let text = String::from_utf8(files["identity/trusted/bakery.toml"].clone()).expect("it is text");
    text.split_once("authority = ").expect("it is there").1.trim_end().to_owned()
});

fuzz_target!(|data: &[u8]| {
    tokens(data);
    let _ = (record::decode::<Answer>(data), Revocations::read(data, &CERTIFICATE));
    let _ = Subject::read(&CertificateDer::from(data.to_vec()));
    let mut enrolment = Enrolment {
        authority: authority(),
        members: BTreeMap::from([(
            Origin([3; 16]),
            Member { public_key: Key::new([3; 32]).public(), node: "n".to_owned() },
        )]),
        invitations: BTreeMap::from([(fingerprint(&SECRET), Timestamp(i64::MAX))]),
        revoked: BTreeSet::from([Origin([4; 16])]),
    };
    let (answer, _) = enrolment.handle(NOW, data);
    if let (Answer::Welcome { .. }, Ok(Ask::Join { secret, .. })) = (&answer, record::decode::<Ask>(data)) {
        assert_eq!(secret, SECRET, "who joins was invited");
    }
    assert!(record::decode::<Answer>(&record::encode(&answer)).is_ok());
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = read_origin(text);
        files_of(text);
    }
});

fn authority() -> Authority {
    Authority::found("bakery", &Key::new([1; 32]), NOW)
}

/// As it is, and with the check that would make it whole.
fn tokens(data: &[u8]) {
    let whole = [data, &fingerprint(data)[..4]].concat();
    let whole = format!("mpj1-{}", Base64UrlUnpadded::encode_string(&whole));
    for text in [std::str::from_utf8(data).unwrap_or_default(), &whole] {
        if let Ok(token) = text.parse::<Token>() {
            assert!(token.to_string().parse::<Token>().is_ok());
            let _ = (token.expires().to_string(), format!("{token:?}"));
        }
    }
}

/// Files with this text, in each place.
fn files_of(text: &str) {
    let disk = Files::default();
    let trusted = text.replace(AUTHORITY, &PEM);
    for (name, content) in [("bakery.toml", &*trusted), ("bakery.revoked", text)] {
        disk.write(&format!("identity/trusted/{name}"), content.as_bytes()).expect("memory takes it");
    }
    for trusted in load_trusted(&disk).unwrap_or_default() {
        assert_eq!(trusted.site, "bakery");
        save_trusted(&disk, &trusted).expect("what was read can be written");
        assert_eq!(load_trusted(&disk).expect("it can be read again"), [trusted]);
    }
    for name in
        ["site.crt", "node.crt", "node.key", "incarnation", "revoked", "seeds", "address", "authority.key", "members"]
    {
        disk.write(&format!("identity/{name}"), trusted.as_bytes()).expect("memory takes it");
    }
    let _ = (NodeIdentity::load(&disk).is_ok(), files::load_enrolment(&disk).is_ok());
}

/// A disk in memory.
#[derive(Debug, Default)]
struct Files(Mutex<BTreeMap<String, Vec<u8>>>);

impl Disk for Files {
    fn open(&self, _: &str) -> io::Result<Box<dyn BlockDevice>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().expect("nobody failed").get(path).cloned())
    }

    fn write(&self, path: &str, content: &[u8]) -> io::Result<()> {
        self.0.lock().expect("nobody failed").insert(path.to_owned(), content.to_vec());
        Ok(())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.lock().expect("nobody failed").remove(path);
        Ok(())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let files = self.0.lock().expect("nobody failed");
        let inside = |name: &String| {
            name.strip_prefix(path)?.strip_prefix('/').filter(|name| !name.contains('/')).map(str::to_owned)
        };
        Ok(files.keys().filter_map(inside).collect())
    }

    fn space(&self) -> io::Result<DiskSpace> {
        Ok(DiskSpace { free: 1, total: 1 })
    }
}
