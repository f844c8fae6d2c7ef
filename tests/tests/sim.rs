//! Many worlds, each from its seed: see `wpool_tests::sim`.

use wpool_tests::sim::{self, Knobs, Summary};

#[test]
fn worlds_keep_their_promises() {
    let mut sum = Summary::default();
    for seed in 0..200 {
        match sim::run(seed, 2_000) {
            Ok(summary) => sum.add(&summary),
            Err(failure) => panic!("{:?}\n{failure}", Knobs::of(seed)),
        }
    }
    println!("{sum:?}");
}
