//! `millpond site trust`, `trusts` and `distrust`.

use std::path::{Path, PathBuf};

use millpond_cluster::identity::{self, How, Mask, Masks, NodeIdentity, Terms, Trusted, fingerprint, is_address};
use millpond_core::record::Class;
use serde_json::{Value, json};

use crate::{
    commands::{
        node::identity_told,
        table::{self, Column},
    },
    exit::{Failure, Told},
    world::{World, os},
};

#[derive(Debug, clap::Args)]
pub struct Trust {
    /// The other site's DATA_DIR/identity/site.crt, as it came from there
    #[arg(value_name = "FILE")]
    certificate: PathBuf,
    /// What its nodes may have of this site's records: alert, state, pane, raw
    ///
    /// Default: alert,pane; with --uplink: all of them.
    #[arg(long, value_name = "CLASS,…", value_delimiter = ',', alias = "exchange")]
    classes: Vec<String>,
    /// Of which devices, with `*` for any run of characters
    #[arg(long, value_name = "PATTERN,…", value_delimiter = ',', default_value = "*")]
    devices: Vec<String>,
    /// What leaves only in part, as HOW:METRIC,…@DEVICE,…; HOW is `drop`, `token`, `round/DIGITS` or, for the names of devices, `names`;
    /// without @DEVICE,… of all devices; may be repeated
    #[arg(long, value_name = "MASK")]
    mask: Vec<String>,
    /// Node of the other site from which this node fetches that site's records, as host:port; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    address: Vec<String>,
    /// Classes that are fetched there, of those that the other site lets this one have
    #[arg(
        long,
        value_name = "CLASS,…",
        value_delimiter = ',',
        default_values = ["alert", "state", "pane", "raw"],
        requires = "address"
    )]
    take: Vec<String>,
    /// Node of a cloud to which this node delivers its site's records, as host:port; may be repeated, the first that is reached is used
    #[arg(long, value_name = "ADDRESS")]
    uplink: Vec<String>,
    /// Data directory of the node
    #[arg(long, default_value = "millpond-data", value_name = "DIR")]
    data: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct Trusts {
    /// Print JSON, one document per line, instead of a table
    #[arg(long)]
    json: bool,
    /// Data directory of the node
    #[arg(long, default_value = "millpond-data", value_name = "DIR")]
    data: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct Distrust {
    /// Name of the site, as `millpond site trusts` shows it
    #[arg(value_name = "NAME")]
    site: String,
    /// Data directory of the node
    #[arg(long, default_value = "millpond-data", value_name = "DIR")]
    data: PathBuf,
}

pub fn trust(args: Trust) -> anyhow::Result<()> {
    let bytes = os::read(&args.certificate).map_err(|error| {
        Told::new(format!("cannot read {}", args.certificate.display())).failure(Failure::NoInput).because(error)
    })?;
    for (option, addresses) in [("--address", &args.address), ("--uplink", &args.uplink)] {
        if let Some(address) = addresses.iter().find(|address| !is_address(address)) {
            let told = Told::new(format!("{option} {address}: it is not host:port"));
            return Err(told.hint(format!("for example {option} 10.1.0.5:7800")).into());
        }
    }
    if let Some(pattern) = args.devices.iter().find(|pattern| pattern.contains(['?', '[', ']'])) {
        let told = Told::new(format!("--devices {pattern}: only `*` stands for other characters"));
        return Err(told.hint("give several patterns: --devices 'oven-1,oven-2*'").into());
    }
    let all = ["alert", "state", "pane", "raw"].map(str::to_owned);
    let classes = match &args.classes[..] {
        [] if args.uplink.is_empty() => ["alert", "pane"].map(str::to_owned).to_vec(),
        [] => all.to_vec(),
        named => named.to_vec(),
    };
    let masks = args.mask.iter().map(|text| mask_of(text)).collect::<anyhow::Result<_>>()?;
    let masks = Masks { masks, ..Masks::default() };
    let terms = Terms { classes: classes_of("--classes", &classes)?, devices: args.devices, masks };
    let take = classes_of("--take", &args.take)?;
    let trusted = Trusted::new(&String::from_utf8_lossy(&bytes), terms).map_err(|error| {
        let told = Told::new(format!("{} cannot be used", args.certificate.display())).failure(Failure::BadInput);
        told.hint("the other site's certificate is its DATA_DIR/identity/site.crt").because(error)
    })?;
    let mut trusted = Trusted { addresses: args.address, take, uplink: args.uplink, ..trusted };
    let env = World::new(&args.data)?;
    let own = NodeIdentity::load(env.disk.as_ref()).map_err(identity_told)?;
    let own = own.ok_or_else(|| {
        let told = Told::new(format!("the node in {} belongs to no site", args.data.display()));
        told.hint("`millpond site init` founds one, also for a single node")
    })?;
    if own.authority() == fingerprint(&trusted.authority) {
        let told = Told::new(format!("{} is the certificate of this node's own site", args.certificate.display()));
        return Err(told.hint("give the file identity/site.crt that came from the other site").into());
    }
    let known = identity::load_trusted(env.disk.as_ref()).map_err(files_told)?;
    if known.iter().any(|known| known.site == trusted.site && known.authority != trusted.authority) {
        let told = Told::new(format!("another site of the name {} is trusted already", trusted.site));
        return Err(told.hint(format!("if it was founded anew: millpond site distrust {}", trusted.site)).into());
    }
    let before = known.iter().find(|known| known.site == trusted.site).map(|known| &known.terms.masks);
    identity::draw_secret(&mut trusted.terms.masks, before, &mut env.rng("masks"));
    identity::save_trusted(env.disk.as_ref(), &trusted).map_err(files_told)?;
    tell(&trusted, &args.data);
    Ok(())
}

fn tell(trusted: &Trusted, data: &Path) {
    let Trusted { site, terms, addresses, uplink, .. } = trusted;
    eprintln!(
        "Nodes of site {site} may have from this one: {} of {}.",
        names(&terms.classes),
        terms.devices.join(", ")
    );
    for mask in &terms.masks.masks {
        eprintln!("Of that only in part: {}.", shown_mask(mask));
    }
    if !uplink.is_empty() {
        eprintln!("They are delivered to {}; `millpond uplinks` shows how far it has come.", uplink.join(", "));
    }
    if addresses.is_empty() {
        eprintln!("Nothing of it is fetched here; for that say --address with one of its nodes.");
    } else {
        eprintln!("What it lets this site have is fetched from {}.", addresses.join(", "));
    }
    eprintln!("The other site must trust this one, too: give it {}.", data.join("identity/site.crt").display());
    eprintln!(
        "A running node goes by it within a few seconds; other nodes of this site have trust files of their own."
    );
}

pub fn trusts(args: &Trusts) -> anyhow::Result<()> {
    let env = World::new(&args.data)?;
    let all = identity::load_trusted(env.disk.as_ref()).map_err(files_told)?;
    let classes = |classes: &[Class]| -> Vec<&str> { classes.iter().map(|class| class.name()).collect() };
    let shown = |trusted: &Trusted| {
        let fingerprint: String = fingerprint(&trusted.authority).iter().map(|byte| format!("{byte:02x}")).collect();
        json!({
            "site": trusted.site,
            "classes": classes(&trusted.terms.classes),
            "devices": trusted.terms.devices,
            "masks": trusted.terms.masks.masks.iter().map(shown_mask).collect::<Vec<String>>(),
            "addresses": trusted.addresses,
            "take": if trusted.addresses.is_empty() { Vec::new() } else { classes(&trusted.take) },
            "uplink": trusted.uplink,
            "authority": fingerprint,
        })
    };
    let items: Vec<Value> = all.iter().map(shown).collect();
    if args.json {
        return table::print_json(&items);
    }
    if items.is_empty() {
        eprintln!("no other site is trusted");
        return Ok(());
    }
    let columns = [
        Column("SITE", "site"),
        Column("MAY HAVE", "classes"),
        Column("OF DEVICES", "devices"),
        Column("MASKED", "masks"),
        Column("FETCHED FROM", "addresses"),
        Column("FETCHED", "take"),
    ];
    let joined = |item: &Value| -> Value {
        let text = |list: &Vec<Value>| list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
        let fields = item.as_object().into_iter().flatten();
        fields
            .map(|(key, value)| (key.clone(), value.as_array().map_or(value.clone(), |list| json!(text(list)))))
            .collect()
    };
    table::print(&columns, &items.iter().map(joined).collect::<Vec<Value>>())
}

pub fn distrust(args: &Distrust) -> anyhow::Result<()> {
    let env = World::new(&args.data)?;
    if !identity::remove_trusted(env.disk.as_ref(), &args.site).map_err(files_told)? {
        let told = Told::new(format!("no site of the name {} is trusted", args.site));
        return Err(told.hint("`millpond site trusts` shows those that are").into());
    }
    let copies = args.data.join(millpond_cluster::OTHER_SITES_FOLDER).join(&args.site);
    eprintln!("Nodes of site {} are not believed here any more.", args.site);
    eprintln!("What was fetched from it stays in {} until you remove that folder.", copies.display());
    Ok(())
}

fn names(classes: &[Class]) -> String {
    classes.iter().map(|class| class.name()).collect::<Vec<_>>().join(", ")
}

fn classes_of(option: &str, names: &[String]) -> anyhow::Result<Vec<Class>> {
    let class = |name: &String| Class::ALL.into_iter().find(|class| class.name() == name.as_str());
    let known = |name: &String| {
        let told = || Told::new(format!("{option} {name}: there is no class `{name}`"));
        class(name).ok_or_else(|| told().hint("alert, state, pane or raw").into())
    };
    names.iter().map(known).collect()
}

/// Reads `HOW[/DIGITS][:METRIC,…][@DEVICE,…]`.
fn mask_of(text: &str) -> anyhow::Result<Mask> {
    let (rest, devices) = text.split_once('@').unwrap_or((text, "*"));
    let (how, metrics) = rest.split_once(':').unwrap_or((rest, ""));
    let (how, digits) = how.split_once('/').map_or((how, None), |(how, digits)| (how, Some(digits)));
    let list = |text: &str| text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let told = |why: &str| {
        let told = Told::new(format!("--mask {text}: {why}"));
        anyhow::Error::from(
            told.hint("for example drop:operator*, token:badge@press-*, round/1:temperature, names@press-*"),
        )
    };
    let (how, device) = match how {
        "drop" => (How::Drop, false),
        "token" => (How::Token, false),
        "round" => (How::Round, false),
        "names" => (How::Token, true),
        _ => return Err(told("it begins with drop, token, round or names")),
    };
    let number = |digits: &str| digits.parse().map_err(|_| told("the digits are not a number"));
    let digits = digits.map(number).transpose()?;
    let mask = Mask { devices: list(devices), metrics: list(metrics), how, digits, device };
    match mask.problem() {
        Some(problem) => Err(told(&problem)),
        None => Ok(mask),
    }
}

fn shown_mask(mask: &Mask) -> String {
    let how = match mask.how {
        How::Drop => "drop".to_owned(),
        How::Token if mask.device => "names".to_owned(),
        How::Token => "token".to_owned(),
        How::Round => format!("round/{}", mask.digits.unwrap_or(0)),
    };
    let metrics = if mask.metrics.is_empty() { String::new() } else { format!(":{}", mask.metrics.join(",")) };
    format!("{how}{metrics}@{}", mask.devices.join(","))
}

fn files_told(error: identity::IdentityError) -> anyhow::Error {
    let told = Told::new("the list of other sites cannot be used").failure(Failure::BadInput);
    told.hint("it is in identity/trusted of the data directory, a file for each site").because(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_shown_as_it_is_read() {
        for text in [
            "drop:operator*,badge@press-*,oven-1",
            "token:badge@*",
            "round/-2:t@*",
            "names@press-*",
            "names:badge@press-*",
        ] {
            assert_eq!(shown_mask(&mask_of(text).expect("a mask")), text);
        }
        assert_eq!(shown_mask(&mask_of("round:t").expect("a mask")), "round/0:t@*");
        for text in ["hide:t", "drop", "round/x:t", "round/99:t", "drop/1:t", ""] {
            assert!(mask_of(text).is_err(), "{text}");
        }
    }
}
