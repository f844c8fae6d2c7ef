//! Many worlds, each from its seed: see `wpool_tests::sim`.
//!
//! A failing world says its seed and all its knobs; put its seed into `tests/sim-seeds.txt`. To run one
//! world alone, or a long run of ten million events, from the seed onwards:
//!
//! ```text
//! WPOOL_SIM_SEED=7 cargo test -p wpool-tests --test sim -- --nocapture
//! WPOOL_SIM_SEED=1000000 WPOOL_SIM_EVENTS=10000000 cargo test -p wpool-tests --test sim -- --nocapture
//! ```

use wpool_tests::sim::small::{self, Operator, Size};
use wpool_tests::sim::{self, Knobs, Summary, UNREACHABLE};

/// Events with faults in each world.
const EVENTS_EACH: u64 = 2_000;

/// Worlds of an ordinary run.
const WORLDS: u64 = 150;

#[expect(
    clippy::print_stdout,
    reason = "a failing world must say its seed first"
)]
fn live_through(seed: u64, events: u64, sum: &mut Summary) {
    println!("seed {seed}, {events} events, {:?}", Knobs::of(seed));
    match sim::run(seed, events) {
        Ok(summary) => sum.add(&summary),
        Err(failure) => panic!("{failure}"),
    }
}

fn number_from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect(name))
}

#[test]
fn worlds_keep_their_promises() {
    let (first, events) = match number_from_env("WPOOL_SIM_SEED") {
        Some(seed) => (seed, number_from_env("WPOOL_SIM_EVENTS").unwrap_or(1)),
        None => (0, WORLDS * EVENTS_EACH),
    };
    let end = first + events.div_ceil(EVENTS_EACH);
    let threads = std::thread::available_parallelism().unwrap().get();
    let sums = std::thread::scope(|scope| {
        let live = |thread| {
            let mut sum = Summary::default();
            for seed in (first..end).skip(thread).step_by(threads) {
                live_through(seed, EVENTS_EACH, &mut sum);
            }
            sum
        };
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(move || live(n))).collect();
        let ended = running.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended.collect::<Result<Vec<_>, _>>()
    });
    let mut sum = Summary::default();
    for of_thread in sums.expect("a world broke a promise") {
        sum.add(&of_thread);
    }
    println!("{sum:?}\n{}", sum.coverage);
    if number_from_env("WPOOL_SIM_SEED").is_none() {
        assert_every_end_was_seen(&sum);
    }
}

/// Worlds in which something never happens prove nothing about it.
fn assert_every_end_was_seen(sum: &Summary) {
    let Summary {
        events,
        submitted,
        refused,
        runs,
        requeued,
        retried,
        reported,
        cancelled,
        cleared,
        expired,
        quarantined,
        overran,
        shut_down,
        kills,
        recycled,
        crashes,
        interrupted,
        parked,
        dropped,
        coverage,
    } = *sum;
    let ends = reported + cancelled + cleared + expired + quarantined + overran + shut_down;
    assert_eq!(
        submitted,
        refused + ends + interrupted,
        "every job has one end in each life"
    );
    for (name, seen) in [
        ("events", events),
        ("runs", runs),
        ("requeued", requeued),
        ("retried", retried),
        ("reported", reported),
        ("cancelled", cancelled),
        ("cleared", cleared),
        ("expired", expired),
        ("quarantined", quarantined),
        ("overran", overran),
        ("shut_down", shut_down),
        ("kills", kills),
        ("recycled", recycled),
        ("crashes", crashes),
        ("interrupted", interrupted),
        ("parked", parked),
        ("dropped", dropped),
    ] {
        assert!(seen >= 50, "{name} was seen only {seen} times");
    }
    let mut unseen = coverage.unseen();
    unseen.retain(|(state, word)| {
        let reason = UNREACHABLE
            .iter()
            .find(|cell| (cell.0, cell.1) == (*state, *word));
        reason.is_none()
    });
    assert_eq!(unseen, [], "words that never came, by state:\n{coverage}");
}

#[test]
fn worlds_that_once_found_a_bug_stay_found_out() {
    let lines = include_str!("../sim-seeds.txt").lines();
    for line in lines.filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let mut numbers = line.split_whitespace().map_while(|word| word.parse().ok());
        let (Some(seed), Some(events)) = (numbers.next(), numbers.next()) else {
            panic!("not a seed and a number of events: {line}");
        };
        live_through(seed, events, &mut Summary::default());
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let [first, second] = [0, 1].map(|_| sim::run(3, 1_000).map_err(|failure| failure.to_string()));
    assert_eq!(first, second);
    let other = sim::run(4, 1_000).map_err(|failure| failure.to_string());
    assert_ne!(first, other);
}

/// Looks at a small world completely; `WPOOL_SIM_DEPTH` adds to the depth.
#[expect(
    clippy::print_stdout,
    reason = "how much was seen is part of the result"
)]
fn explore(size: Size) {
    let deeper = number_from_env("WPOOL_SIM_DEPTH").unwrap_or(0);
    let depth = size.depth + u32::try_from(deeper).expect("WPOOL_SIM_DEPTH");
    match small::explore(Size { depth, ..size }) {
        Ok(seen) => println!("{size:?}: {seen:?}"),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn every_history_of_one_job_and_one_slot_keeps_the_promises() {
    explore(Size {
        slots: 1,
        jobs: 1,
        depth: 7,
        operator: Operator::Meddles,
    });
}

#[test]
fn every_history_of_two_jobs_and_one_slot_keeps_the_promises() {
    explore(Size {
        slots: 1,
        jobs: 2,
        depth: 8,
        operator: Operator::Sleeps,
    });
}

#[test]
fn every_history_of_two_jobs_and_two_slots_keeps_the_promises() {
    explore(Size {
        slots: 2,
        jobs: 2,
        depth: 6,
        operator: Operator::Sleeps,
    });
}

#[test]
fn every_history_of_workers_that_are_replaced_keeps_the_promises() {
    explore(Size {
        slots: 1,
        jobs: 1,
        depth: 8,
        operator: Operator::Recycles,
    });
}

#[test]
fn every_history_of_a_pool_that_is_resized_keeps_the_promises() {
    explore(Size {
        slots: 1,
        jobs: 1,
        depth: 7,
        operator: Operator::Resizes,
    });
}
