use millpond_core::{
    ids::{Incarnation, Seq},
    ranges::RangeSet,
    record::Track,
};

use super::site::node;
use crate::{
    replication::{limits::*, *},
    wire::{Held, Stored},
};

/// A machine of node 0 on a site of four, and its clock.
struct Bench {
    machine: Replication,
    now: Moment,
}

fn life(number: usize) -> Life {
    Life { origin: node(number), incarnation: Incarnation(1) }
}

fn run(of: Life, track: Track, first: u64, last: u64) -> RunKey {
    RunKey { life: of, track, first: Seq(first), last: Seq(last) }
}

fn held(of: Life, track: Track, ranges: &[(u64, u64)]) -> Held {
    Held { origin: of.origin, incarnation: of.incarnation, track, ranges: ranges.to_vec(), floor: 0 }
}

impl Bench {
    fn new(replicas: usize) -> Bench {
        let settings = Settings { me: life(0), replicas };
        let machine = Replication::new(settings, Seq(0), [Seq(0); 2], []);
        let mut bench = Bench { machine, now: Moment(0) };
        bench.tell(Input::Members((0..4).map(node).collect()));
        bench
    }

    fn tell(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.machine.handle(self.now, input, &mut effects);
        effects
    }

    fn later(&mut self, ms: u64) -> Vec<Effect> {
        self.now = self.now.after_ms(ms);
        self.tell(Input::Tick)
    }

    fn heard(&mut self, from: usize, held: Held) -> Vec<RunKey> {
        fetches(&self.tell(Input::Heard { from: node(from), held: vec![held] }))
    }

    fn commit(&mut self, head: u64) -> Vec<Effect> {
        self.tell(Input::Committed { head: Seq(head), last: [Seq(head); 2] })
    }

    fn stored(&mut self, from: usize, track: Track, first: u64, last: u64) -> Vec<Effect> {
        let Life { origin, incarnation } = life(0);
        let stored = vec![Stored { origin, incarnation, track, first: Seq(first), last: Seq(last) }];
        self.tell(Input::PeerStored { from: node(from), stored })
    }
}

fn fetches(effects: &[Effect]) -> Vec<RunKey> {
    let fetches = effects.iter().filter_map(|effect| match effect {
        Effect::Fetch { run, .. } => Some(*run),
        _ => None,
    });
    fetches.collect()
}

fn pushes(effects: &[Effect], of: Track) -> Vec<(u64, u64)> {
    let pushes = effects.iter().filter_map(|effect| match effect {
        Effect::Push { track, first, last, .. } if *track == of => Some((first.0, last.0)),
        _ => None,
    });
    pushes.collect()
}

fn announced(effects: &[Effect]) -> Vec<(Origin, Vec<Held>)> {
    let announced = effects.iter().filter_map(|effect| match effect {
        Effect::Announce { to, held } => Some((*to, held.clone())),
        _ => None,
    });
    announced.collect()
}

#[test]
fn a_live_run_is_kept_only_over_its_origins_own_link() {
    let mut bench = Bench::new(2);
    let theirs = run(life(2), Track::Results, 1, 5);
    (1..3).for_each(|peer| drop(bench.tell(Input::PeerUp(node(peer)))));
    let arrive = |from, run, live| Input::Arrived { from: node(from), run, live };
    assert_eq!(bench.tell(arrive(1, theirs, true)), [Effect::Ignore(theirs, Why::NotItsOrigin)]);
    assert_eq!(bench.tell(arrive(1, theirs, false)), [Effect::Ignore(theirs, Why::NotAsked)]);
    let own = run(life(0), Track::Results, 1, 5);
    assert_eq!(bench.tell(arrive(1, own, true)), [Effect::Ignore(own, Why::Own)]);
    assert_eq!(bench.tell(arrive(2, theirs, true)), [Effect::Keep(theirs)]);
    assert_eq!(bench.tell(arrive(2, theirs, true)), [Effect::Ignore(theirs, Why::Held)]);
    let ack = Effect::Acknowledge { to: node(2), stored: vec![theirs.stored()] };
    assert_eq!(bench.tell(Input::Persisted(theirs)), std::slice::from_ref(&ack));
    // The acknowledgement may have been lost.
    assert_eq!(bench.tell(arrive(2, theirs, true)), [ack, Effect::Ignore(theirs, Why::Held)]);
}

#[test]
fn a_repaired_run_is_kept_only_from_whom_it_was_asked() {
    let mut bench = Bench::new(2);
    (1..4).for_each(|peer| drop(bench.tell(Input::PeerUp(node(peer)))));
    let asked = bench.heard(1, held(life(3), Track::Results, &[(1, 100)]));
    assert_eq!(asked, [run(life(3), Track::Results, 1, 100)]);
    let part = run(life(3), Track::Results, 1, 60);
    let arrive = |from, run| Input::Arrived { from: node(from), run, live: false };
    let more = run(life(3), Track::Results, 50, 101);
    assert_eq!(bench.tell(arrive(2, part)), [Effect::Ignore(part, Why::NotAsked)]);
    assert_eq!(bench.tell(arrive(1, more)), [Effect::Ignore(more, Why::NotAsked)]);
    assert_eq!(bench.tell(arrive(1, part)), [Effect::Keep(part)]);
    let rest = bench.tell(Input::FetchEnded { id: FetchId(1), how: FetchEnd::Done });
    assert_eq!(fetches(&rest), [run(life(3), Track::Results, 61, 100)]);
    // A peer that has nothing of what it offered is not asked again, until it says so again.
    assert_eq!(bench.tell(Input::FetchEnded { id: FetchId(2), how: FetchEnd::Done }), []);
    assert_eq!(fetches(&bench.later(60_000)), []);
    assert_eq!(bench.heard(1, held(life(3), Track::Results, &[(1, 100)])).len(), 1);
}

#[test]
fn results_are_fetched_newest_first_and_raw_events_oldest_first() {
    let mut bench = Bench::new(3);
    bench.tell(Input::PeerUp(node(1)));
    let of = |track| held(life(2), track, &[(1, 50), (101, 10_000)]);
    let results = bench.heard(1, of(Track::Results));
    let n = FETCH_NUMBERS_MAX;
    let newest = [(10_001 - n, 10_000), (10_001 - 2 * n, 10_000 - n)];
    assert_eq!(results, newest.map(|(first, last)| run(life(2), Track::Results, first, last)));
    bench.tell(Input::PeerUp(node(1)));
    let raw = bench.heard(1, of(Track::Raw));
    assert_eq!(raw, [(1, 50), (101, 100 + n)].map(|(first, last)| run(life(2), Track::Raw, first, last)));
}

#[test]
fn a_fetch_that_failed_goes_to_somebody_else_or_waits() {
    let mut bench = Bench::new(3);
    (1..3).for_each(|peer| drop(bench.tell(Input::PeerUp(node(peer)))));
    let from = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Fetch { from, id, .. } => Some((*from, *id)),
            _ => None,
        })
    };
    let hear = |from| Input::Heard { from: node(from), held: vec![held(life(3), Track::Raw, &[(1, 9)])] };
    let (first, id) = from(&bench.tell(hear(1))).expect("a fetch");
    assert_eq!(bench.tell(hear(2)), [], "it is under way already");
    let (second, id) = from(&bench.tell(Input::FetchEnded { id, how: FetchEnd::Failed })).expect("another peer");
    assert!(first != second);
    assert_eq!(from(&bench.tell(Input::FetchEnded { id, how: FetchEnd::Busy { retry_ms: 300 } })), None);
    assert_eq!(from(&bench.later(299)), None);
    let (third, id) = from(&bench.later(2)).expect("after the pause");
    assert_eq!(third, second);
    // A peer that is gone takes its fetches with it.
    bench.now = bench.now.after_ms(BACK_OFF_MS);
    assert_eq!(from(&bench.tell(Input::PeerDown(third))).map(|(from, _)| from), Some(first));
    assert_eq!(bench.tell(Input::FetchEnded { id, how: FetchEnd::Failed }), []);
}

#[test]
fn nothing_is_fetched_into_a_disk_that_does_not_take_it() {
    let mut bench = Bench::new(3);
    bench.tell(Input::PeerUp(node(1)));
    let asked = bench.heard(1, held(life(2), Track::Raw, &[(1, 9)]))[0];
    assert_eq!(bench.tell(Input::Arrived { from: node(1), run: asked, live: false }), [Effect::Keep(asked)]);
    bench.tell(Input::FetchEnded { id: FetchId(1), how: FetchEnd::Done });
    bench.tell(Input::NotPersisted(asked));
    assert_eq!(fetches(&bench.later(DISK_PAUSE_MS - 1)), []);
    assert_eq!(fetches(&bench.later(1)), [asked]);
}

#[test]
fn what_may_still_come_live_is_not_fetched_at_once() {
    let mut bench = Bench::new(3);
    bench.tell(Input::PeerUp(node(1)));
    let own = |last| held(life(1), Track::Results, &[(1, last)]);
    // What was there when the link came up never comes live.
    assert_eq!(bench.heard(1, own(10)).len(), 1);
    assert_eq!(bench.heard(1, own(20)), []);
    assert_eq!(fetches(&bench.later(LIVE_GRACE_MS - 1)), []);
    assert_eq!(fetches(&bench.later(1)), [run(life(1), Track::Results, 11, 20)]);
}

#[test]
fn pushing_starts_at_the_head_and_skips_what_a_link_cannot_carry() {
    let mut bench = Bench::new(3);
    bench.commit(100);
    let told = announced(&bench.tell(Input::PeerUp(node(1))));
    assert_eq!(told[0].1, [held(life(0), Track::Results, &[(1, 100)]), held(life(0), Track::Raw, &[(1, 100)])]);
    assert_eq!(pushes(&bench.commit(105), Track::Raw), [(101, 105)]);
    bench.tell(Input::PushFailed { to: node(1), track: Track::Raw });
    let effects = bench.commit(110);
    assert_eq!(pushes(&effects, Track::Raw), [(106, 110)]);
    for head in 111..111 + PUSHES_MAX as u64 {
        bench.commit(head);
    }
    let head = 110 + PUSHES_MAX as u64;
    assert_eq!(pushes(&bench.commit(head + 1), Track::Raw), [], "too much is unacknowledged");
    bench.stored(1, Track::Raw, 1, head);
    assert_eq!(pushes(&bench.commit(head + 2), Track::Raw), [(head + 2, head + 2)], "the gap is left to repair");
    let told = announced(&bench.later(ANNOUNCE_SOON_MS));
    assert!(told[0].1.contains(&held(life(0), Track::Raw, &[(1, head + 2)])));
}

#[test]
fn a_commit_without_records_of_a_track_is_not_pushed_there() {
    let mut bench = Bench::new(3);
    bench.tell(Input::PeerUp(node(1)));
    let commit = |head, results, raw| Input::Committed { head: Seq(head), last: [Seq(results), Seq(raw)] };
    let effects = bench.tell(commit(5, 0, 5));
    assert_eq!((pushes(&effects, Track::Results), pushes(&effects, Track::Raw)), (vec![], vec![(1, 5)]));
    let effects = bench.tell(commit(9, 9, 5));
    assert_eq!((pushes(&effects, Track::Results), pushes(&effects, Track::Raw)), (vec![(1, 9)], vec![]));
}

#[test]
fn confirmed_is_what_enough_reachable_peers_have_of_both_tracks() {
    let mut bench = Bench::new(2);
    (1..4).for_each(|peer| drop(bench.tell(Input::PeerUp(node(peer)))));
    bench.commit(10);
    let confirmed = |head| vec![Effect::Confirmed { head: Seq(head) }];
    assert_eq!(bench.stored(1, Track::Results, 1, 10), []);
    assert_eq!(bench.stored(1, Track::Raw, 1, 10), []);
    assert_eq!(bench.stored(2, Track::Results, 1, 10), []);
    assert_eq!(bench.stored(3, Track::Raw, 1, 4), confirmed(4));
    assert_eq!(bench.stored(3, Track::Raw, 6, 10), [], "5 is missing there");
    assert_eq!(bench.stored(3, Track::Raw, 5, 5), confirmed(10));
    bench.commit(12);
    bench.tell(Input::PeerDown(node(1)));
    assert_eq!(bench.stored(2, Track::Results, 11, 12), []);
    assert_eq!(bench.stored(3, Track::Results, 1, 12), []);
    assert_eq!(bench.stored(3, Track::Raw, 11, 12), [], "who is away counts for nothing");
    assert_eq!(bench.stored(2, Track::Raw, 1, 12), confirmed(12));
    assert_eq!(Bench::new(0).commit(3), confirmed(3));
}

#[test]
fn what_a_repair_brought_is_told_soon_to_those_that_may_lack_it() {
    let mut bench = Bench::new(3);
    (1..4).for_each(|peer| drop(bench.tell(Input::PeerUp(node(peer)))));
    bench.tell(Input::PeerDown(node(2)));
    let asked = bench.heard(1, held(life(2), Track::Results, &[(1, 9)]))[0];
    bench.tell(Input::Arrived { from: node(1), run: asked, live: false });
    assert_eq!(bench.tell(Input::Persisted(asked)), []);
    assert_eq!(announced(&bench.later(ANNOUNCE_SOON_MS - 1)), []);
    let told = announced(&bench.later(1));
    assert_eq!(told, [(node(3), vec![held(life(2), Track::Results, &[(1, 9)])])], "the other one has it");
    assert_eq!(announced(&bench.later(1000)), []);
}

#[test]
fn a_node_learns_that_others_know_more_of_it() {
    let mut bench = Bench::new(1);
    bench.tell(Input::PeerUp(node(1)));
    bench.commit(5);
    let mut hear = |incarnation, last| {
        let me = Life { origin: node(0), incarnation: Incarnation(incarnation) };
        bench.heard(1, held(me, Track::Results, &[(1, last)]));
        let effects = bench.tell(Input::Heard { from: node(1), held: vec![held(me, Track::Raw, &[(1, last)])] });
        let superseded = |effect: &Effect| matches!(effect, Effect::Superseded { .. });
        (effects.iter().any(superseded), bench.machine.superseded)
    };
    assert_eq!(hear(1, 5), (false, None));
    assert_eq!(hear(0, 99), (false, None));
    assert_eq!(hear(1, 6).1, Some((Incarnation(1), Seq(6))));
    assert_eq!(hear(3, 2), (false, Some((Incarnation(3), Seq(2)))), "told with the first of both tracks");
}

#[test]
fn what_was_given_up_is_neither_offered_nor_wanted() {
    let mut bench = Bench::new(3);
    bench.tell(Input::PeerUp(node(1)));
    let copy = run(life(2), Track::Raw, 40, 100);
    bench.tell(Input::Persisted(copy));
    bench.tell(Input::Dropped { life: life(2), track: Track::Raw, floor: Seq(60) });
    assert_eq!(bench.machine.offered(life(2), Track::Raw, Seq(1), Seq(80)), [(61, 80)]);
    assert_eq!(bench.heard(1, held(life(2), Track::Raw, &[(1, 101)])), [run(life(2), Track::Raw, 101, 101)]);
    let told = announced(&bench.tell(Input::PeerUp(node(3))));
    let expected = Held { floor: 60, ..held(life(2), Track::Raw, &[(40, 100)]) };
    assert!(told[0].1.contains(&expected), "{told:?}");
}

#[test]
fn nonsense_from_a_peer_is_passed_over() {
    let mut bench = Bench::new(3);
    bench.tell(Input::PeerUp(node(1)));
    for ranges in [vec![(0, 5)], vec![(5, 4)], vec![(1, u64::MAX)], vec![(1, 2); RANGES_MAX + 1]] {
        assert_eq!(bench.heard(1, held(life(2), Track::Results, &ranges)), []);
    }
    for number in 0..5000u32 {
        let of = Life { origin: node(3), incarnation: Incarnation(number) };
        bench.heard(1, held(of, Track::Results, &[(1, 2)]));
    }
    assert!(bench.machine.peers[&node(1)].held.len() <= 2 * LIVES_MAX);
    assert_eq!(bench.heard(3, held(life(2), Track::Results, &[(1, 2)])), [], "its link is not up");
}

#[test]
fn the_ledger_says_what_is_here_and_what_is_missing() {
    let mut bench = Bench::new(1);
    (1..3).for_each(|peer| drop(bench.tell(Input::PeerUp(node(peer)))));
    bench.commit(7);
    bench.tell(Input::Persisted(run(life(3), Track::Results, 1, 10)));
    bench.heard(1, held(life(3), Track::Results, &[(1, 30)]));
    bench.heard(2, held(life(3), Track::Results, &[(1, 20)]));
    let rows = bench.machine.ledger();
    let row = rows.iter().find(|row| row.origin == node(3)).expect("a row");
    assert_eq!((row.held.as_slice(), row.head, row.missing, row.fetching), (&[(1, 10)][..], 30, 20, 20));
    assert_eq!((row.head_at.as_slice(), row.peers.as_slice()), (&[node(1)][..], &[(node(1), 30), (node(2), 20)][..]));
    assert!(row.wanted && !row.own);
    let own: Vec<_> = rows.iter().filter(|row| row.own).map(|row| (row.track, row.head, row.missing)).collect();
    assert_eq!(own, Track::ALL.map(|track| (track, 7, 0)));
}

#[test]
fn what_was_found_on_disk_is_not_fetched_again() {
    let covered: RangeSet = [(1, 50)].into_iter().collect();
    let copied = Copied { life: life(2), track: Track::Results, covered, floor: Seq(0) };
    let settings = Settings { me: life(0), replicas: 1 };
    let machine = Replication::new(settings, Seq(0), [Seq(0); 2], [copied]);
    let mut bench = Bench { machine, now: Moment(0) };
    bench.tell(Input::PeerUp(node(1)));
    assert_eq!(bench.heard(1, held(life(2), Track::Results, &[(1, 60)])), [run(life(2), Track::Results, 51, 60)]);
}
