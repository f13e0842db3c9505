use super::*;
use crate::world::World;

fn load_text(name: &str, text: &str, sets: &[String]) -> Result<Loaded, Problems> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _inside = runtime.enter();
    super::load_text(&World::client(), name, text, sets)
}

fn problems(text: &str, sets: &[&str]) -> Problems {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    match load_text("edge.toml", text, &sets) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    }
}

/// Line and column from 1; the column counts characters.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Code, line, column and what is pointed at, of each problem.
fn places(text: &str) -> Vec<(&'static str, usize, usize, String)> {
    let problems = problems(text, &[]);
    let mut places: Vec<_> = problems
        .list
        .iter()
        .map(|problem| {
            let place = problem.place.clone().unwrap_or_else(|| panic!("no place: {}", problem.message));
            let (line, column) = line_and_column(&problems.sources[place.source].text, place.span.start);
            (problem.code, line, column, problems.sources[place.source].text[place.span].to_owned())
        })
        .collect();
    places.sort_by_key(|(_, line, column, _)| (*line, *column));
    places
}

#[test]
fn an_empty_file_is_all_defaults() {
    let loaded = load_text("edge.toml", "", &[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.warnings.list.is_empty());
}

#[test]
fn all_problems_are_reported_at_once_with_their_places() {
    let text = r#"
[node]
nam = "a"
shards = 0

[mqtt]
listen = "localhost"
anonymous = "yes"

[retention.raw]
max_age = "30"

[[windows]]
name = "w"
kind = "tumblng"
size = 10

[[rules]]
name = "r"
when = { type = "threshold", metric = "t", op = "=>", valu = 1 }

[site]
listen = "nowhere"
"#;
    let found = places(text);
    let expected = [
        ("MP0302", 3, 1, "nam"),
        ("MP0304", 4, 10, "0"),
        ("MP0304", 7, 10, "\"localhost\""),
        ("MP0303", 8, 13, "\"yes\""),
        ("MP0304", 11, 11, "\"30\""),
        ("MP0304", 15, 8, "\"tumblng\""),
        ("MP0303", 16, 8, "10"),
        ("MP0305", 20, 8, "{ type = \"threshold\", metric = \"t\", op = \"=>\", valu = 1 }"),
        ("MP0304", 20, 49, "\"=>\""),
        ("MP0302", 20, 55, "valu"),
        ("MP0304", 23, 10, "\"nowhere\""),
    ];
    let found: Vec<_> = found.iter().map(|(code, line, column, text)| (*code, *line, *column, text.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_misspelt_key_is_shown_with_the_one_that_was_meant() {
    let shown = problems("[mqtt]\nlisten = \"127.0.0.1:1\"\nanonymus = true\n", &[]).to_string();
    let expected = "error[MP0302]: unknown key `anonymus` in `mqtt`
 --> edge.toml:3:1
  |
3 | anonymus = true
  | ^^^^^^^^ unknown key
  |
  = hint: did you mean `anonymous`?";
    assert_eq!(shown, expected);
}

#[test]
fn text_that_is_not_toml_is_reported_with_every_place() {
    let found = places("[node\nname = \n[http]\nlisten == 1\n");
    assert!(found.len() >= 2, "{found:?}");
    assert!(found.iter().all(|(code, ..)| *code == "MP0301"), "{found:?}");
}

#[test]
fn set_overrides_what_the_file_says_and_the_defaults() {
    let sets =
        ["node.name=press-hall", "mqtt.listen=127.0.0.1:0", "http.anonymous=true", "retention.raw.max_bytes=1048576"]
            .map(str::to_owned);
    let text = "[node]\nname = \"a\"\n[retention.raw]\nfloor_bytes = 0\n";
    let config = load_text("edge.toml", text, &sets).unwrap().config;
    assert_eq!(config.node.name, "press-hall");
    assert_eq!(config.mqtt.listen, "127.0.0.1:0".parse().unwrap());
    assert!(config.http.anonymous);
    let expected = Config::default().retention.raw;
    assert_eq!(config.retention.raw.max_bytes, 1 << 20);
    assert_eq!(config.retention.raw.floor_bytes, 0);
    assert_eq!(config.retention.raw.max_age, expected.max_age);
}

#[test]
fn set_reaches_into_lists_and_takes_numbers_for_text() {
    let text = "[[windows]]\nname = \"w\"\nsize = \"10s\"\n";
    let config = load_text("f", text, &["windows.0.name=7".into(), "windows.0.size=5s".into()]).unwrap().config;
    assert_eq!(config.windows[0].name, "7");
    assert_eq!(config.windows[0].size, Some("5s".parse().unwrap()));
}

#[test]
fn a_bad_set_is_shown_like_a_bad_line() {
    for (set, code) in [
        ("node.nam=x", "MP0302"),
        ("node.name", "MP0309"),
        ("=x", "MP0309"),
        ("windows.3.size=5s", "MP0303"),
        ("node.name.first=x", "MP0309"),
        ("mqtt.listen=here", "MP0304"),
    ] {
        let found = problems("[node]\nname = \"a\"\n", &[set]);
        assert!(found.list.iter().any(|problem| problem.code == code), "{set}: {found}");
        assert!(found.list.iter().all(|problem| problem.place.is_some()), "{set}: {found}");
    }
}

#[test]
fn a_table_says_only_what_differs_from_its_default() {
    let config = load_text("f", "[retention.raw]\nmax_age = \"1d\"\n", &[]).unwrap().config;
    let expected = Config::default().retention;
    assert_eq!(config.retention.raw.max_bytes, expected.raw.max_bytes);
    assert_eq!(config.retention.pane, expected.pane);
}

#[test]
fn open_doors_are_warned_of() {
    let found = problems("[mqtt]\nlisten = \"0.0.0.0:1883\"\nanonymous = true\n", &[]);
    assert_eq!((found.errors(), found.list.len(), found.list[0].code), (0, 1, "MP0307"));
    let found = problems("[http]\nlisten = \"[::]:8080\"\n", &[]);
    assert_eq!((found.errors(), found.list.len(), found.list[0].code), (0, 1, "MP0307"));
    assert!(problems("[mqtt]\nanonymous = true\n", &[]).list.is_empty());
}

#[test]
fn what_is_shown_can_be_read_again() {
    let config = load_text("f", "[[windows]]\nname = \"w\"\nsize = \"10s\"\n", &[]).unwrap().config;
    let text = toml::to_string(&config).unwrap();
    assert_eq!(load_text("shown", &text, &[]).unwrap().config, config);
}

#[test]
fn the_reference_page_and_the_schema_are_current() {
    let page = include_str!("../../docs/reference/configuration.md");
    assert!(page == reference_page(), "run `millpond config reference > docs/reference/configuration.md`");
    let schema = include_str!("../../deploy/millpond.schema.json");
    let expected = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
    assert!(schema == expected, "run `millpond config schema > deploy/millpond.schema.json`");
}

#[test]
fn every_key_of_the_configuration_has_a_comment() {
    fn walk(path: &str, schema: &serde_json::Value, definitions: &serde_json::Value, without: &mut Vec<String>) {
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let is_documented = property.get("description").is_some()
                || property.get("const").is_some()
                || property
                    .get("$ref")
                    .and_then(|r| definitions.get(r.as_str()?.strip_prefix("#/$defs/")?)?.get("description"))
                    .is_some();
            if !is_documented {
                without.push(format!("{path}.{key}"));
            }
        }
        for variant in schema["oneOf"].as_array().into_iter().flatten() {
            walk(path, variant, definitions, without);
        }
    }
    let schema = json_schema();
    let mut without = Vec::new();
    walk("", &schema, &schema["$defs"], &mut without);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        walk(name, definition, &schema["$defs"], &mut without);
    }
    assert!(without.is_empty(), "without a comment: {without:?}");
}

#[test]
fn the_example_is_valid() {
    let shown = problems(include_str!("../../deploy/examples/edge.toml"), &[]);
    assert!(shown.list.is_empty(), "{shown}");
}

#[test]
fn what_a_site_cannot_work_with_is_refused() {
    let text = "[site]\nadvertise = \"0.0.0.0:7800\"\nseeds = [\"press-hall\"]\nreplicas = 0\nack = \"site\"\nreplica_max_bytes = 1\n";
    let found: Vec<(usize, String)> = places(text).into_iter().map(|(_, line, _, text)| (line, text)).collect();
    let said = ["\"0.0.0.0:7800\"", "\"press-hall\"", "0", "1"].map(str::to_owned);
    assert_eq!(found.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>(), said);
    assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3, 4, 6]);
    assert!(
        problems("[site]\nadvertise = \"10.0.0.5:7800\"\nseeds = [\"a:7800\", \"[::1]:7800\"]\n", &[]).list.is_empty()
    );
}
