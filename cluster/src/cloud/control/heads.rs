//! Makes a head of what an operator wants: one form for texts that say the same, rules in the shadow beside those that they may take the place
//! of, and everything judged together.

use millpond_actors::config::Config;
use millpond_core::rule::SHADOW;
use millpond_gateway::port::Json;
use millpond_proto::{
    documents::Kind,
    uplink::orders::{KINDS, Order, TEXTS_BYTES_MAX, TEXTS_MAX, Text},
};

use crate::mesh::texts::{Named, together};

/// The texts of the head, or all that is wrong. `base` is what holds now for the same sites.
pub(super) fn head(texts: Vec<Text>, base: &[Text]) -> Result<Vec<Text>, Vec<String>> {
    let mut problems = Vec::new();
    let mut head: Vec<Text> = Vec::new();
    for text in texts {
        match plain(&text) {
            Ok(text) => head.push(text),
            Err(problem) => problems.push(format!("{} {}: {problem}", text.kind, text.name)),
        }
    }
    let mut kept = Vec::new();
    for text in head.iter().filter(|text| text.kind == "rules") {
        if let Some(old) = text.name.strip_suffix(SHADOW)
            && !head.iter().any(|other| other.kind == "rules" && other.name == old)
        {
            kept.extend(base.iter().filter(|other| other.kind == "rules" && other.name == old).cloned());
        }
    }
    head.extend(kept);
    head.sort();
    let order = Order { texts: head, ..Order::default() };
    if problems.is_empty() && !order.is_sound() {
        problems.push(format!(
            "at most {TEXTS_MAX} texts of {TEXTS_BYTES_MAX} bytes in all, of the kinds {}, each name once",
            KINDS.join(", ")
        ));
    }
    if problems.is_empty() {
        let kind = |text: &Text| Kind::ALL.into_iter().find(|kind| kind.name() == text.kind);
        let mut named: Vec<Named<'_>> =
            order.texts.iter().filter_map(|text| Some((kind(text)?, text.name.as_str(), text.text.as_str()))).collect();
        named.sort();
        problems.extend(together(Config::default(), &named));
    }
    if problems.is_empty() { Ok(order.texts) } else { Err(problems) }
}

/// The text as it is written by itself: keys in their order, no comments. A rule in the shadow gets its name.
fn plain(text: &Text) -> Result<Text, String> {
    let mut value: Json = match text.text.trim_start().starts_with('{') {
        true => serde_json::from_str(&text.text).map_err(|error| format!("the text is not JSON: {error}"))?,
        false => toml::from_str(&text.text).map_err(|error| format!("the text is not TOML: {error}"))?,
    };
    let mut name = text.name.clone();
    if text.kind == "rules" && value["shadow"] == true && !name.ends_with(SHADOW) {
        if value.get("name").is_some_and(|said| *said != *name) {
            return Err(format!("the text is called `{name}`, but what it says {}", value["name"]));
        }
        name.push_str(SHADOW);
        value["name"] = name.as_str().into();
    }
    let table = toml::Table::try_from(&value).map_err(|error| format!("the text is not a table: {error}"))?;
    let text =
        Text { kind: text.kind.clone(), name, text: toml::to_string(&table).map_err(|error| error.to_string())? };
    Ok(text)
}

#[cfg(test)]
mod tests {
    use millpond_proto::uplink::orders::head_of;

    use super::*;

    fn rule(name: &str, text: &str) -> Text {
        let when = "when = { type = \"threshold\", metric = \"t\", op = \">\", value = 1.0 }\n";
        Text { kind: "rules".into(), name: name.into(), text: format!("{when}{text}") }
    }

    #[test]
    fn texts_that_say_the_same_have_the_same_head() {
        let one = head(vec![rule("hot", "name = \"hot\" # a comment\nfor = \"5s\"")], &[]).expect("good");
        let json = r#"{"for":"5s","name":"hot","when":{"value":1.0,"op":">","metric":"t","type":"threshold"}}"#;
        let other = head(vec![Text { text: json.into(), ..rule("hot", "") }], &[]).expect("good");
        assert_eq!(head_of(&one), head_of(&other));
    }

    #[test]
    fn a_rule_in_the_shadow_stands_beside_the_one_that_was_there() {
        let base = head(vec![rule("hot", "name = \"hot\"")], &[]).expect("good");
        let with = head(vec![rule("hot", "name = \"hot\"\nshadow = true\nfor = \"1m\"")], &base).expect("good");
        assert_eq!(with.iter().map(|text| text.name.as_str()).collect::<Vec<_>>(), ["hot", "hot--shadow"]);
        assert_eq!(with[0], base[0]);
        assert!(with[1].text.contains("name = \"hot--shadow\""), "{}", with[1].text);
        // Once more changes nothing.
        let again = head(vec![rule("hot", "name = \"hot\"\nshadow = true\nfor = \"1m\"")], &with).expect("good");
        assert_eq!(again, with);
    }

    #[test]
    fn everything_is_judged_together() {
        let on = "name = \"slow\"\nwhen = { type = \"window\", window = \"ten\", metric = \"t\", aggregate = \"mean\", op = \">\", value = 1.0 }";
        let on = Text { kind: "rules".into(), name: "slow".into(), text: on.into() };
        let problems = head(vec![on.clone(), rule("bad", "nmae = 1")], &[]).expect_err("no such window, no such key");
        assert!(problems[0].contains("rules bad") && problems[0].contains("nmae"), "{problems:?}");
        let problems = head(vec![on.clone()], &[]).expect_err("no such window");
        assert_eq!(problems, ["rules slow, when.window: there is no window `ten`"]);
        let window = Text { kind: "windows".into(), name: "ten".into(), text: "size = \"10s\"".into() };
        assert!(head(vec![on.clone(), window.clone()], &[]).is_ok());
        assert!(head(vec![window.clone(), window], &[]).is_err(), "twice");
        assert!(head(vec![Text { kind: "users".into(), ..on }], &[]).is_err(), "no such kind");
    }
}
