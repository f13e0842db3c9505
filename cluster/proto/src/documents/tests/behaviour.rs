//! What readers and writers rely on.

use serde_json::json;

use super::site::{MS, Site, origin};
use crate::{
    Now,
    documents::{COALESCE, Documents, Effect, Input, Kind, OPS_MAX, Refused},
};

#[test]
fn a_change_reaches_three_nodes_well_below_400_ms() {
    for seed in 0..20 {
        let mut site = Site::new(seed, 3);
        site.run(3_000 + seed * 111);
        let start = site.now;
        site.edit(0, |docs, now, wall| docs.put_text(now, wall, Kind::Rules, "hot", "celsius > 90"));
        assert_eq!(site.docs(0).text(Kind::Rules, "hot").as_deref(), Some("celsius > 90"));
        site.run(600);
        for node in 1..3 {
            let (at, kind, name) = site.machines[node].changed.last().expect("it heard").clone();
            assert_eq!((kind, name.as_str()), (Kind::Rules, "hot"));
            assert!((at - start) / MS < 380, "{} ms, seed {seed}", (at - start) / MS);
        }
    }
}

#[test]
fn edits_of_a_quarter_of_a_second_are_one_change() {
    let mut site = Site::new(1, 2);
    for number in 0..100 {
        site.edit(0, |docs, now, wall| docs.set_desired(now, wall, "press-1", &json!({"speed": number})));
        site.run(2);
    }
    site.settles_within(2_000).expect("they agree");
    let doc = site.docs(1).docs.values().next().expect("one document");
    assert_eq!(doc.history.get_changes(&[]).len(), 1);
    assert_eq!(COALESCE.as_millis(), 250);
}

#[test]
fn different_fields_of_a_device_can_be_changed_at_once() {
    let mut site = Site::new(2, 2);
    site.edit(0, |docs, now, wall| docs.set_device(now, wall, "press-1", &json!({"type": "press", "place": "hall 1"})));
    site.settles_within(3_000).expect("they agree");
    site.cut(0, 1);
    site.edit(0, |docs, now, wall| docs.set_device(now, wall, "press-1", &json!({"type": "press", "place": "hall 2"})));
    site.edit(1, |docs, now, wall| {
        docs.set_device(now, wall, "press-1", &json!({"type": "press", "place": "hall 1", "labels": {"a/b": ["x"]}}))
    });
    site.run(1_000);
    site.settles_within(3_000).expect("they agree");
    let expected = json!({"type": "press", "place": "hall 2", "labels": {"a/b": ["x"]}});
    assert_eq!(site.docs(0).device("press-1"), Some(expected));
    assert!(site.docs(0).conflicts().is_empty());
    assert_eq!(site.docs(1).devices().into_iter().collect::<Vec<_>>(), ["press-1"]);
}

#[test]
fn a_conflict_names_authors_and_can_be_decided() {
    let mut site = Site::new(3, 2);
    (site.machines[0].skew_ms, site.machines[1].skew_ms) = (0, 0);
    site.settles_within(1_000).expect("they agree");
    site.cut(0, 1);
    site.edit(0, |docs, now, wall| docs.put_text(now, wall, Kind::Rules, "hot", "first"));
    site.run(20);
    site.edit(1, |docs, now, wall| docs.put_text(now, wall, Kind::Rules, "hot", "second"));
    site.run(1_000);
    site.settles_within(3_000).expect("they agree");
    let conflicts = site.docs(0).conflicts();
    assert_eq!(conflicts, site.docs(1).conflicts());
    let [conflict] = &conflicts[..] else { panic!("one conflict: {conflicts:?}") };
    assert_eq!((conflict.kind, conflict.name.as_str(), conflict.path.as_str()), (Kind::Rules, "hot", ""));
    let versions: Vec<_> = conflict.versions.iter().map(|version| (version.author, version.value.clone())).collect();
    assert_eq!(versions, [(origin(1), Some(json!("second"))), (origin(0), Some(json!("first")))]);
    assert_eq!(site.docs(0).text(Kind::Rules, "hot").as_deref(), Some("second"), "the later one holds meanwhile");

    site.edit(0, |docs, now, wall| docs.resolve(now, wall, conflict, 1)).expect("it runs").expect("there is one");
    site.settles_within(3_000).expect("they agree");
    assert_eq!(site.docs(1).text(Kind::Rules, "hot").as_deref(), Some("first"));
    assert!(site.docs(0).conflicts().is_empty() && site.docs(1).conflicts().is_empty());
    let refused = site.edit(0, |docs, now, wall| docs.resolve(now, wall, conflict, 2));
    assert_eq!(refused, Some(Err(Refused::NoSuchVersion)));
}

#[test]
fn the_same_content_has_the_same_head_however_it_came_about() {
    let mut site = Site::new(4, 1);
    let empty = site.docs(0).head(Kind::Windows);
    site.edit(0, |docs, now, wall| docs.put_text(now, wall, Kind::Windows, "w", "1 min"));
    let one = site.docs(0).head(Kind::Windows);
    site.edit(0, |docs, now, wall| docs.put_text(now, wall, Kind::Windows, "w", "5 min"));
    assert!(one != empty && site.docs(0).head(Kind::Windows) != one);
    site.edit(0, |docs, now, wall| docs.put_text(now, wall, Kind::Windows, "w", "1 min"));
    assert_eq!(site.docs(0).head(Kind::Windows), one);
    site.edit(0, |docs, now, wall| docs.remove_text(now, wall, Kind::Windows, "w"));
    assert_eq!(site.docs(0).head(Kind::Windows), empty);
}

#[test]
fn a_kind_is_settled_when_all_of_it_is_on_disk() {
    let mut site = Site::new(6, 2);
    assert!(site.docs(0).are_settled(Kind::Rules));
    site.edit(0, |docs, now, wall| docs.put_text(now, wall, Kind::Rules, "hot", "celsius > 90"));
    assert!(!site.docs(0).are_settled(Kind::Rules) && site.docs(0).are_settled(Kind::Windows));
    site.run(3_000);
    assert!((0..2).all(|node| site.docs(node).are_settled(Kind::Rules)));
    for node in 0..2 {
        site.crash(node);
        site.start(node);
        assert_eq!(site.docs(node).text(Kind::Rules, "hot").as_deref(), Some("celsius > 90"));
    }
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut site = Site::new(5, 1);
    let refused = site.edit(0, |docs, now, wall| {
        [
            docs.set_device(now, wall, "", &json!({})),
            docs.set_device(now, wall, "d", &json!(1)),
            docs.delete_device(now, wall, "d"),
            docs.put_text(now, wall, Kind::Registry, "d", "x"),
            docs.put_text(now, wall, Kind::Rules, "d", &"x".repeat(300_000)),
        ]
    });
    assert!(refused.expect("it runs").iter().all(Result::is_err));
    assert_eq!(site.docs(0).size().values, 0);
}

/// Grows a document until its next epoch is due, in few changes.
fn fill(site: &mut Site, node: usize) {
    for round in 0..OPS_MAX / 500 + 2 {
        for number in 0..500 {
            let text = format!("{round} {number}");
            site.edit(node, |docs, now, wall| {
                docs.put_text(now, wall, Kind::Rules, &format!("r{}", number % 50), &text)
            });
            if number % 50 == 49 {
                site.run(300);
            }
        }
    }
}

fn epoch(site: &Site, node: usize) -> u32 {
    site.docs(node).docs.values().map(|doc| doc.epoch).max().unwrap_or(0)
}

#[test]
fn a_long_document_goes_on_in_its_next_epoch_and_no_edit_is_lost() {
    let mut site = Site::new(6, 3);
    site.edit(2, |docs, now, wall| docs.put_text(now, wall, Kind::Rules, "kept", "from the start"));
    site.edit(2, |docs, now, wall| docs.put_text(now, wall, Kind::Rules, "removed", "early"));
    site.settles_within(5_000).expect("they agree");
    // One is away, another is away with it only for its last edit.
    site.cut(2, 0);
    site.cut(2, 1);
    site.edit(2, |docs, now, wall| docs.put_text(now, wall, Kind::Rules, "away", "written on the old epoch"));
    site.run(1_000);
    site.crash(2);
    site.edit(0, |docs, now, wall| docs.remove_text(now, wall, Kind::Rules, "removed"));
    fill(&mut site, 0);
    site.run(5_000);
    assert_eq!((epoch(&site, 0), epoch(&site, 1)), (1, 1));
    assert!(site.docs(1).size().operations < OPS_MAX / 2);
    site.start(2);
    site.edit(2, |docs, now, wall| docs.put_text(now, wall, Kind::Rules, "late", "not even a change yet"));
    site.settles_within(5_000).expect("they agree");
    assert_eq!(epoch(&site, 2), 1);
    let texts = site.docs(1).texts(Kind::Rules);
    assert_eq!(texts["kept"], "from the start");
    assert_eq!(texts["away"], "written on the old epoch");
    assert_eq!(texts["late"], "not even a change yet");
    assert_eq!((texts.get("removed"), texts.len()), (None, 53));
    assert!(site.lost().is_empty());
    // The old epoch is not on disk any more, and the new one can be read from there.
    let texts = site.docs(2).texts(Kind::Rules);
    assert!(site.machines[2].disk.keys().all(|key| !String::from_utf8_lossy(key).contains("@0#")));
    site.crash(2);
    site.start(2);
    assert_eq!(site.docs(2).texts(Kind::Rules), texts);
}

#[test]
fn an_epoch_that_two_begin_at_once_becomes_one() {
    let mut site = Site::new(7, 2);
    site.edit(0, |docs, now, wall| docs.put_text(now, wall, Kind::Rules, "both", "before"));
    site.settles_within(5_000).expect("they agree");
    site.cut(0, 1);
    fill(&mut site, 0);
    fill(&mut site, 1);
    site.edit(0, |docs, now, wall| docs.put_text(now, wall, Kind::Rules, "from 0", "x"));
    site.edit(1, |docs, now, wall| docs.put_text(now, wall, Kind::Rules, "both", "after"));
    site.run(2_000);
    assert_eq!((epoch(&site, 0), epoch(&site, 1)), (1, 1));
    site.settles_within(10_000).expect("they agree");
    let texts = site.docs(0).texts(Kind::Rules);
    assert_eq!((texts["both"].as_str(), texts["from 0"].as_str(), texts.len()), ("after", "x", 52));
    assert!(site.lost().is_empty());
}

#[test]
fn nothing_is_said_about_what_is_known_but_a_hash() {
    let mut site = Site::new(8, 3);
    for number in 0..300 {
        let device = format!("press-{number}");
        site.edit(0, |docs, now, wall| {
            docs.set_device(now, wall, &device, &json!({"type": "press", "number": number}))
        });
    }
    site.settles_within(10_000).expect("they agree");
    site.run(5_000);
    let before = site.bytes_sent;
    site.run(10_000);
    assert!(site.bytes_sent - before < 2_000, "{} bytes in ten quiet seconds", site.bytes_sent - before);
}

#[test]
fn many_small_changes_in_many_documents_stay_within_their_budget() {
    let mut docs = Documents::new(origin(0), 1, []);
    docs.changes_max = 1_000;
    for round in 0..50 {
        let now = Now(round * 300 * MS);
        for number in 0..128 {
            docs.set_desired(now, 1, &format!("press-{number}"), &json!({"speed": round})).expect("fine");
        }
        for later in 0..6 {
            let mut effects = Vec::new();
            docs.handle(Now(now.0 + (260 + later) * MS), Input::Tick, &mut effects);
            while let Some(effect) = effects.pop() {
                if let Effect::Save { id, .. } = effect {
                    docs.handle(now, Input::Saved(id), &mut effects);
                }
            }
        }
        // Each tick begins one epoch, of some 20 changes; a round makes 50.
        assert!(docs.size().changes <= 1_000 + 100, "{:?} in round {round}", docs.size());
    }
    assert!(docs.size().documents > 40 && docs.counts().epochs_begun > 50);
    assert_eq!(docs.desired("press-7"), json!({"speed": 49}));
}
