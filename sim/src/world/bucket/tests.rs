use millpond_core::time::Span;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, path::Path};

use super::*;
use crate::world::{HostSpec, World, core::Instant};

/// What a program heard of each of its operations.
type Heard = Arc<Mutex<Vec<Result<(), String>>>>;

struct Bench {
    world: World,
    user: HostId,
    bucket: Bucket,
}

fn bench(seed: u64) -> Bench {
    let mut world = World::new(seed, 0.0);
    let host = |name: &str, number| HostSpec {
        name: name.to_owned(),
        address: std::net::IpAddr::from([10, 0, 0, number]),
        clock_offset: Span::ZERO,
        clock_ppm: 0.0,
        disk: None,
    };
    let (user, store) = (world.add(host("user", 1)), world.add(host("store", 2)));
    let bucket = Bucket::new(world.core().clone(), world.network().clone(), store);
    Bench { world, user, bucket }
}

impl Bench {
    /// Boots the user's machine; it creates objects `0` to `count - 1`, one after the other.
    fn create(&mut self, count: usize) -> Heard {
        let env = self.world.boot(self.user);
        let place = Place { host: self.user, boot: self.world.boots(self.user) - 1 };
        let (store, heard) = (self.bucket.client(env.clone(), place), Heard::default());
        let tells = heard.clone();
        self.world.enter(self.user, || {
            env.spawn(async move {
                for number in 0..count {
                    let path = Path::from(number.to_string());
                    let said = store.put_opts(&path, "x".into(), PutMode::Create.into()).await;
                    let said = said.map(drop).map_err(|error| match error {
                        Error::AlreadyExists { .. } => "exists".to_owned(),
                        error => error.to_string(),
                    });
                    tells.lock().unwrap().push(said);
                }
            });
        });
        heard
    }

    fn run(&mut self, seconds: u64) {
        let until = self.world.now().after(seconds * 1_000_000_000);
        while self.world.step(until).is_some() {}
        assert_eq!(self.world.now(), Instant(until.0));
    }

    fn holds(&self, number: usize) -> bool {
        at_once(self.bucket.at_rest().get(&Path::from(number.to_string()))).is_ok()
    }
}

#[test]
fn what_is_stored_is_listed_and_created_once() {
    let mut bench = bench(1);
    let heard = bench.create(3);
    bench.run(10);
    assert_eq!(*heard.lock().unwrap(), vec![Ok(()); 3]);
    let store = bench.bucket.at_rest();
    let again = at_once(store.put_opts(&Path::from("0"), "y".into(), PutMode::Create.into()));
    assert!(matches!(again, Err(Error::AlreadyExists { .. })));
    at_once(store.put(&Path::from("a/b"), "z".into())).unwrap();
    let listed: Vec<_> = at_once(futures_util::TryStreamExt::try_collect(store.list(Some(&Path::from("a"))))).unwrap();
    assert_eq!(listed.iter().map(|object| object.location.to_string()).collect::<Vec<_>>(), ["a/b"]);
}

#[test]
fn a_refusal_did_nothing_and_a_lie_did() {
    for (spec, there) in
        [(StoreSpec { refused: 1.0, ..StoreSpec::CALM }, false), (StoreSpec { lied: 1.0, ..StoreSpec::CALM }, true)]
    {
        let mut bench = bench(2);
        bench.bucket.set(spec);
        let heard = bench.create(1);
        bench.run(10);
        assert!(heard.lock().unwrap()[0].is_err());
        assert_eq!((bench.holds(0), bench.bucket.stats().failures()), (there, 1));
    }
}

#[test]
fn a_program_that_created_twice_may_hear_that_it_came_second() {
    let mut bench = bench(3);
    bench.bucket.set(StoreSpec { duplicate: 1.0, ..StoreSpec::CALM });
    let heard = bench.create(20);
    bench.run(10);
    let heard = heard.lock().unwrap();
    let second = heard.iter().filter(|said| **said == Err("exists".to_owned())).count();
    assert!(heard.len() == 20 && (1..20).contains(&second), "{heard:?}");
}

#[test]
fn nothing_passes_a_cut_and_the_program_gives_up() {
    let mut bench = bench(4);
    bench.world.network().cut_both(bench.user, bench.bucket.host());
    let heard = bench.create(1);
    bench.run(9);
    assert!(heard.lock().unwrap().is_empty());
    bench.run(9);
    assert!(heard.lock().unwrap()[0].is_err() && !bench.holds(0));
    assert_eq!(bench.bucket.stats().unanswered, 1);
}

#[test]
fn what_a_dead_program_asked_for_may_be_done_or_not() {
    let mut done = 0;
    for seed in 0..40 {
        let mut bench = bench(seed);
        bench.bucket.set(StoreSpec { latency: (Span::from_secs(1), Span::from_secs(2)), ..StoreSpec::CALM });
        bench.create(1);
        let user = bench.user;
        bench.world.power_off(user);
        bench.run(10);
        done += u32::from(bench.holds(0));
    }
    assert!((5..35).contains(&done), "{done} of 40");
}
