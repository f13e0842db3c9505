//! Random edits among crashes, lost messages and partitions.

use millpond_core::planted::{self, Bug};
use rand::RngExt;
use serde_json::json;

use super::site::Site;
use crate::documents::Kind;

fn edit_something(site: &mut Site) {
    let node = site.rng.random_range(0..site.machines.len());
    let device = format!("press-{}", site.rng.random_range(0..6));
    let text = format!("rule-{}", site.rng.random_range(0..4));
    let field = ["a", "b", "c/d"][site.rng.random_range(0..3)];
    let number: u32 = site.rng.random_range(0..100);
    match site.rng.random_range(0..12) {
        0..=2 => {
            site.edit(node, |docs, now, wall| {
                docs.set_device(now, wall, &device, &json!({"place": "hall 1", "labels": {field: number}}))
            });
        }
        3 => {
            site.edit(node, |docs, now, wall| docs.delete_device(now, wall, &device));
        }
        4..=7 => {
            let patch = if number.is_multiple_of(7) { json!({field: null}) } else { json!({field: {"at": number}}) };
            site.edit(node, |docs, now, wall| docs.set_desired(now, wall, &device, &patch));
        }
        8..=10 => {
            site.edit(node, |docs, now, wall| docs.put_text(now, wall, Kind::Rules, &text, &format!("rule {number}")));
        }
        _ => {
            site.edit(node, |docs, now, wall| docs.remove_text(now, wall, Kind::Rules, &text));
        }
    }
}

fn disturb(site: &mut Site) {
    let (a, b) = (site.rng.random_range(0..site.machines.len()), site.rng.random_range(0..site.machines.len()));
    match site.rng.random_range(0..8) {
        0 | 1 => site.crash(a),
        2 | 3 => site.start(a),
        4 | 5 => site.cut(a, b),
        6 => site.heal(),
        _ => site.loss = [0.0, 0.05, 0.3][site.rng.random_range(0..3)],
    }
}

/// A site that went through a lot, and is whole again if it can be.
fn ordeal(seed: u64, count: usize, steps: usize) -> (Site, Option<u64>) {
    let mut site = Site::new(seed, count);
    if seed % 2 == 1 {
        // So short that epochs begin all the time, often at several nodes at once.
        site.ops_max = 10;
        for node in 0..count {
            site.edit(node, |docs, _, _| docs.ops_max = 10);
        }
    }
    for _ in 0..steps {
        if site.rng.random_bool(0.8) {
            edit_something(&mut site);
        } else {
            disturb(&mut site);
        }
        let pause = [1, 20, 300, 1_500][site.rng.random_range(0..4)];
        site.run(pause);
    }
    site.run(1_000);
    let settled = site.settles_within(30_000);
    (site, settled)
}

fn what_is_wrong(seed: u64) -> Option<String> {
    let (site, settled) = ordeal(seed, 3 + seed as usize % 3, 120);
    if settled.is_none() {
        return Some("they do not agree".to_string());
    }
    if site.early > 0 {
        return Some(format!("{} messages left early", site.early));
    }
    let lost = site.lost();
    (!lost.is_empty()).then(|| format!("lost: {lost:?}"))
}

#[test]
fn after_any_ordeal_all_agree_and_nothing_saved_is_lost() {
    for seed in 0..40 {
        assert_eq!(what_is_wrong(seed), None, "seed {seed}");
    }
}

#[test]
fn ordeals_with_short_documents_go_through_many_epochs() {
    let (site, _) = ordeal(1, 4, 120);
    let counts: Vec<_> = (0..4).map(|node| site.docs(node).counts()).collect();
    assert!(
        counts.iter().any(|counts| counts.epochs_begun > 0) && counts.iter().any(|counts| counts.epochs_taken > 0),
        "{counts:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let (site, settled) = ordeal(7, 4, 150);
        (settled, site.bytes_sent, site.docs(0).head(Kind::Desired), site.docs(0).sum())
    };
    assert_eq!(run(), run());
}

#[test]
fn changes_that_leave_before_they_are_saved_are_found() {
    planted::plant(Some(Bug::ShipBeforeDurable));
    let found = (0..3).any(|seed| what_is_wrong(seed).is_some());
    planted::plant(None);
    assert!(found);
}

/// A node that lost its disk comes back, is edited before it meets the others, and meets them.
fn comes_back_empty() -> (Site, Option<u64>) {
    let mut site = Site::new(3, 3);
    for number in 0..3 {
        site.edit(0, |docs, now, wall| docs.put_text(now, wall, Kind::Rules, "hot", &format!("old {number}")));
        site.run(600);
    }
    site.lose_disk(0);
    site.run(1_000);
    site.start(0);
    site.edit(0, |docs, now, wall| docs.put_text(now, wall, Kind::Rules, "hot", "new"));
    site.run(600);
    let settled = site.settles_within(10_000);
    (site, settled)
}

#[test]
fn a_node_without_its_disk_disturbs_nobody() {
    let (site, settled) = comes_back_empty();
    assert!(settled.is_some());
    assert_eq!(site.docs(2).text(Kind::Rules, "hot").as_deref(), Some("new"));
}

#[test]
fn an_actor_that_is_used_again_is_found() {
    planted::plant(Some(Bug::ReuseDocumentActor));
    let (_, settled) = comes_back_empty();
    planted::plant(None);
    assert_eq!(settled, None);
}

/// Somebody who was away goes on with a device that was deleted meanwhile.
fn goes_on_with_a_deleted_device() -> Site {
    let mut site = Site::new(4, 3);
    site.edit(0, |docs, now, wall| docs.set_device(now, wall, "press-1", &json!({"place": "hall 1"})));
    site.settles_within(5_000).expect("they agree");
    site.cut(2, 0);
    site.cut(2, 1);
    site.edit(0, |docs, now, wall| docs.delete_device(now, wall, "press-1")).expect("it runs").expect("it is there");
    site.run(60_000);
    site.edit(2, |docs, now, wall| {
        docs.set_device(now, wall, "press-1", &json!({"place": "hall 2"})).expect("there, as far as it knows");
        docs.set_desired(now, wall, "press-1", &json!({"speed": 5})).expect("there, as far as it knows");
    });
    site.run(1_000);
    site.settles_within(5_000).expect("they agree");
    site
}

#[test]
fn a_deleted_device_stays_deleted() {
    let mut site = goes_on_with_a_deleted_device();
    for node in 0..3 {
        assert_eq!(site.docs(node).device("press-1"), None);
        assert_eq!(site.docs(node).desired("press-1"), json!({}));
        assert!(site.docs(node).conflicts().is_empty());
    }
    site.edit(1, |docs, now, wall| docs.set_device(now, wall, "press-1", &json!({"type": "press"})));
    site.settles_within(5_000).expect("they agree");
    assert_eq!(site.docs(2).device("press-1"), Some(json!({"type": "press"})));
    assert_eq!(site.docs(2).desired("press-1"), json!({}));
}

#[test]
fn a_device_that_is_resurrected_is_found() {
    planted::plant(Some(Bug::ResurrectDevice));
    let site = goes_on_with_a_deleted_device();
    planted::plant(None);
    assert!(site.docs(0).device("press-1").is_some());
}
