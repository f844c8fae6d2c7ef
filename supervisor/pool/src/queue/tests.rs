//! The order of starts, as `docs/SCHEDULING.md` promises it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::settings::{TenantRule, TenantRules};

/// A queue, and tenants `0..weights.len()` with these weights.
struct World {
    queue: Queue,
    tenants: Tenants,
    ids: Vec<TenantId>,
    arrivals: u64,
}

impl World {
    fn new(weights: &[u32]) -> Self {
        let rule = |weight| TenantRule {
            weight,
            ..TenantRule::default()
        };
        let named = (0..).zip(weights).map(|(n, &weight)| {
            let n: u32 = n;
            (format!("{n}").into(), rule(weight))
        });
        let mut tenants = Tenants::default();
        tenants.set_rules(TenantRules {
            named: named.collect(),
            ..TenantRules::default()
        });
        let ids = (0..weights.len()).map(|n| tenants.meet(&format!("{n}")));
        Self {
            ids: ids.collect(),
            queue: Queue::default(),
            tenants,
            arrivals: 0,
        }
    }

    /// A job whose id tells its tenant: tenant × 1 000 000 + arrival.
    fn submit(&mut self, tenant: usize, priority: Priority, rank: i32) -> JobId {
        self.arrivals += 1;
        let id = JobId(tenant as u64 * 1_000_000 + self.arrivals);
        let spot = Spot {
            priority,
            tenant: self.ids[tenant],
            place: Place::new(rank, self.arrivals),
        };
        self.queue.insert(spot, &self.tenants, id);
        id
    }

    fn next(&mut self, share_period: u32) -> Option<JobId> {
        self.queue.take_next(share_period, &self.tenants)
    }

    fn set_running_max(&mut self, tenant: usize, running_max: Option<u32>) {
        let of = self.tenants.get_mut(self.ids[tenant]);
        of.rule.running_max = running_max;
        let freedom = of.freedom();
        self.queue.set_freedom(self.ids[tenant], freedom);
    }
}

fn tenant_of(id: JobId) -> usize {
    usize::try_from(id.0 / 1_000_000).unwrap()
}

#[test]
fn within_a_tenant_rank_goes_first_and_then_arrival() {
    let mut world = World::new(&[1]);
    let ids: Vec<_> = [0, 5, 5, -1]
        .map(|rank| world.submit(0, Priority::Normal, rank))
        .into();
    let order: Vec<_> = core::iter::from_fn(|| world.next(10)).collect();
    assert_eq!(order, [ids[1], ids[2], ids[0], ids[3]]);
}

#[test]
fn behind_an_endless_stream_of_high_each_lower_class_gets_one_start_in_ten() {
    let mut world = World::new(&[1]);
    let mut class_of = BTreeMap::new();
    for n in 0..1_000 {
        let priority = Priority::ALL[n % 3];
        class_of.insert(world.submit(0, priority, 0), n % 3);
    }
    let first: Vec<_> = core::iter::from_fn(|| world.next(10)).take(100).collect();
    for tenth in first.chunks(10) {
        let of = |class| tenth.iter().filter(|id| class_of[id] == class).count();
        assert_eq!((of(0), of(1), of(2)), (8, 1, 1));
    }
}

#[test]
fn a_tenant_that_is_at_its_limit_now_and_then_does_not_starve_its_low_job() {
    let mut world = World::new(&[1, 1]);
    let low = world.submit(0, Priority::Low, 0);
    for _ in 0..400 {
        world.submit(0, Priority::High, 0);
        world.submit(1, Priority::High, 0);
    }
    // Its class waits at every second start: whenever the tenant may start one, it starts one of its high jobs.
    let mut chances = 0;
    loop {
        world.set_running_max(0, None);
        chances += 1;
        let started = world.next(10).unwrap();
        if started == low {
            break;
        }
        if tenant_of(started) == 0 {
            world.set_running_max(0, Some(0));
            assert_ne!(world.next(10), Some(low));
        }
        assert!(chances < 10, "its class waited {chances} times");
    }
}

#[test]
fn nobody_is_remembered_where_only_held_tenants_wait() {
    let mut world = World::new(&[1; 50]);
    world.submit(0, Priority::Normal, 0);
    world.set_running_max(0, Some(0));
    for visitor in 1..50 {
        world.submit(visitor, Priority::Normal, 0);
        world.next(10).unwrap();
    }
    let remembered = |tenant: &&TenantId| world.queue.remembers(**tenant);
    assert_eq!(world.ids.iter().filter(remembered).count(), 1);
}

#[test]
fn ten_jobs_beside_ten_thousand_are_done_after_twenty_starts() {
    let mut world = World::new(&[1, 1]);
    for _ in 0..10_000 {
        world.submit(0, Priority::Normal, 0);
    }
    for _ in 0..10 {
        world.submit(1, Priority::Normal, 0);
    }
    let first: Vec<_> = core::iter::from_fn(|| world.next(10)).take(21).collect();
    let small = first.iter().filter(|id| tenant_of(**id) == 1).count();
    assert_eq!(small, 10, "{first:?}");
}

#[test]
fn a_tenant_that_was_away_is_neither_paid_for_it_nor_charged() {
    let mut world = World::new(&[1, 1]);
    for _ in 0..100 {
        world.submit(0, Priority::Normal, 0);
    }
    for _ in 0..50 {
        world.next(10);
    }
    for _ in 0..50 {
        world.submit(1, Priority::Normal, 0);
    }
    let next: Vec<_> = core::iter::from_fn(|| world.next(10)).take(20).collect();
    let newcomer = next.iter().filter(|id| tenant_of(**id) == 1).count();
    assert_eq!(newcomer, 10, "{next:?}");
}

#[test]
fn a_tenant_that_hands_in_its_jobs_one_by_one_gets_no_more_than_its_share() {
    let mut world = World::new(&[3, 1]);
    for _ in 0..1_000 {
        world.submit(0, Priority::Normal, 0);
    }
    let mut single = 0;
    world.submit(1, Priority::Normal, 0);
    for _ in 0..400 {
        if tenant_of(world.next(10).unwrap()) == 1 {
            single += 1;
            world.submit(1, Priority::Normal, 0);
        }
    }
    assert!((99..=101).contains(&single), "{single} of 400 at 1 to 3");
}

#[test]
fn nobody_is_remembered_once_nothing_waits() {
    let mut world = World::new(&[1, 7, 3]);
    for n in 0..30 {
        world.submit(n % 3, Priority::ALL[n % 2], 0);
    }
    while world.next(10).is_some() {}
    for &tenant in &world.ids {
        assert!(!world.queue.remembers(tenant));
    }
    let mut forgotten = world.queue.take_forgotten();
    forgotten.sort_unstable();
    forgotten.dedup();
    assert_eq!(forgotten, world.ids);
}

#[test]
fn the_outlook_is_the_order_in_which_jobs_start() {
    let mut world = World::new(&[3, 1, 2]);
    for n in 0..90 {
        world.submit(
            n % 3,
            Priority::ALL[n % 2 + n % 5 % 2],
            i32::try_from(n % 4).unwrap(),
        );
    }
    for _ in 0..7 {
        world.next(5);
    }
    let outlook = outlook::Outlook::new(&world.queue, 5, &world.tenants, Held::But(world.ids[0]));
    let foretold: Vec<_> = outlook.collect();
    let order: Vec<_> = core::iter::from_fn(|| world.next(5)).collect();
    assert_eq!(foretold, order);
}

/// What happens to a queue.
#[derive(Clone, Copy, Debug)]
enum Move {
    Submit(usize, Priority, i32),
    Start,
    Hold(usize),
    Release(usize),
}

const TENANTS: usize = 4;

fn arb_move() -> impl Strategy<Value = Move> {
    let priority = prop::sample::select(Priority::ALL.to_vec());
    prop_oneof![
        6 => (0..TENANTS, priority, -1i32..2).prop_map(|(tenant, priority, rank)| Move::Submit(tenant, priority, rank)),
        6 => Just(Move::Start),
        1 => (0..TENANTS).prop_map(Move::Hold),
        1 => (0..TENANTS).prop_map(Move::Release),
    ]
}

/// Tenants at their limits may come free at any moment, and all at once: then they are due together with whoever has just come.
#[test]
fn a_bound_counts_tenants_that_come_free_and_are_due_at_one_time() {
    const PERIOD: u32 = 3;
    let [held, new, older, other] = [0, 1, 2, 3];
    let mut world = World::new(&[1; 4]);
    let normal = Priority::Normal;
    for tenant in [held, held, older, other, other, other, other, other, other] {
        world.submit(tenant, normal, 0);
    }
    world.set_running_max(older, Some(0));
    assert_eq!(world.next(PERIOD).map(tenant_of), Some(held));
    world.set_running_max(held, Some(0));
    for _ in 0..5 {
        assert_eq!(world.next(PERIOD).map(tenant_of), Some(other));
    }
    let id = world.submit(new, normal, 0);
    let spot = Spot {
        priority: normal,
        tenant: world.ids[new],
        place: Place::new(0, world.arrivals),
    };
    let told = world
        .queue
        .starts_at_most(spot, id, &world.tenants, PERIOD, 100);
    world.set_running_max(held, None);
    world.set_running_max(older, None);
    for _ in 0..20 {
        world.submit(held, Priority::High, 0);
    }
    let starts = core::iter::from_fn(|| world.next(PERIOD));
    let started = 1 + starts.take_while(|started| *started != id).count() as u64;
    assert!(Some(started) <= told, "{started} after {told:?}");
}

/// What a tenant has ahead of its share stays on its account also if it takes back its last job.
#[test]
fn a_tenant_that_takes_its_last_job_back_is_still_ahead() {
    let mut world = World::new(&[1, 1]);
    let normal = Priority::Normal;
    for _ in 0..100 {
        world.submit(1, normal, 0);
    }
    let mut of_other = 0;
    for _ in 0..20 {
        let id = world.submit(0, normal, 0);
        let starts = core::iter::from_fn(|| world.next(10));
        of_other += starts.take_while(|started| *started != id).count();
        // It has none left, and is ahead by the one that it has just started.
        world.submit(0, normal, 0);
        world.queue.remove(Spot {
            priority: normal,
            tenant: world.ids[0],
            place: Place::new(0, world.arrivals),
        });
    }
    assert!((19..=21).contains(&of_other), "{of_other} beside 20");
}

/// A job that waits, as an onlooker knows it.
#[derive(Clone, Copy, Debug)]
struct Known {
    tenant: usize,
    priority: Priority,
    order: (i32, u64),
}

proptest! {
    /// What an onlooker checks: the order within a tenant, the share of classes, the share of tenants, and that a job is given
    /// whenever one may start.
    #[test]
    fn every_start_keeps_the_rules(
        moves in prop::collection::vec(arb_move(), 1..400),
        share_period in 0u32..12,
        weights in prop::collection::vec(1u32..9, TENANTS),
    ) {
        let mut world = World::new(&weights);
        let mut waiting: BTreeMap<JobId, Known> = BTreeMap::new();
        let mut held = [false; TENANTS];
        let mut passed = [0u32; 3];
        // Of each class and pair of tenants: what both started, in parts of their weights, since both could.
        let mut shares: BTreeMap<(Priority, usize, usize), (u64, u64)> = BTreeMap::new();
        let unit = class::STRIDE;
        for a_move in moves {
            match a_move {
                Move::Submit(tenant, priority, rank) => {
                    let id = world.submit(tenant, priority, rank);
                    let order = (-rank, world.arrivals);
                    waiting.insert(id, Known { tenant, priority, order });
                }
                Move::Hold(tenant) => {
                    held[tenant] = true;
                    world.set_running_max(tenant, Some(0));
                }
                Move::Release(tenant) => {
                    held[tenant] = false;
                    world.set_running_max(tenant, None);
                }
                Move::Start => {
                    let may = waiting.values().any(|known| !held[known.tenant]);
                    let started = world.next(share_period);
                    prop_assert_eq!(started.is_some(), may, "a job starts exactly if one may");
                    if let Some(id) = started {
                        let known = waiting.remove(&id).unwrap();
                        prop_assert!(!held[known.tenant]);
                        let before = waiting.values().find(|other| {
                            (other.tenant, other.priority) == (known.tenant, known.priority)
                                && other.order < known.order
                        });
                        prop_assert!(before.is_none(), "{before:?} goes before {known:?}");
                        let bound = share_period.max(SHARE_PERIOD_MIN);
                        for (class, passed) in Priority::ALL.into_iter().zip(&mut passed) {
                            let waits = waiting.values().any(|it| it.priority == class && !held[it.tenant]);
                            let is_empty = !waiting.values().any(|it| it.priority == class);
                            *passed = match (class == known.priority || is_empty, waits) {
                                (true, _) => 0,
                                (false, true) => *passed + 1,
                                (false, false) => *passed,
                            };
                            prop_assert!(*passed < bound || class == Priority::High);
                        }
                        for (&(class, a, b), (of_a, of_b)) in &mut shares {
                            if class != known.priority { continue; }
                            let cost = unit / u64::from(weights[known.tenant]);
                            if a == known.tenant { *of_a += cost; }
                            if b == known.tenant { *of_b += cost; }
                            let apart = of_a.abs_diff(*of_b);
                            let most = unit / u64::from(weights[a]) + unit / u64::from(weights[b]);
                            prop_assert!(apart <= most, "{a} and {b} are {apart} apart of {most}");
                        }
                    }
                }
            }
            let could = |class, tenant: usize| {
                !held[tenant] && waiting.values().any(|it| it.priority == class && it.tenant == tenant)
            };
            for class in Priority::ALL {
                for a in 0..TENANTS {
                    for b in a + 1..TENANTS {
                        if could(class, a) && could(class, b) {
                            shares.entry((class, a, b)).or_default();
                        } else {
                            shares.remove(&(class, a, b));
                        }
                    }
                }
            }
            prop_assert_eq!(world.queue.len(), waiting.len());
        }
    }

    /// Whoever is told a number of starts has started by then: nothing comes in its own class, and its tenant has no limit; what else
    /// happens is up to chance.
    #[test]
    fn no_job_starts_later_than_it_was_told(
        moves in prop::collection::vec(arb_move(), 1..120),
        later in prop::collection::vec(arb_move(), 400),
        share_period in 0u32..12,
        weights in prop::collection::vec(1u32..9, TENANTS),
        which in any::<prop::sample::Index>(),
        free in 0..TENANTS,
    ) {
        let mut world = World::new(&weights);
        let mut waiting = BTreeMap::new();
        let go_on = |world: &mut World, a_move, waiting: &mut BTreeMap<JobId, Spot>| match a_move {
            Move::Submit(tenant, priority, rank) => {
                let id = world.submit(tenant, priority, rank);
                let place = Place::new(rank, world.arrivals);
                waiting.insert(id, Spot { priority, tenant: world.ids[tenant], place });
                None
            }
            // One tenant has no limit.
            Move::Hold(tenant) if tenant != free => {
                world.set_running_max(tenant, Some(0));
                None
            }
            Move::Hold(_) => None,
            Move::Release(tenant) => {
                world.set_running_max(tenant, None);
                None
            }
            Move::Start => {
                let started = world.next(share_period);
                if let Some(id) = started {
                    waiting.remove(&id);
                }
                started
            }
        };
        for a_move in moves {
            go_on(&mut world, a_move, &mut waiting);
        }
        go_on(&mut world, Move::Submit(free, Priority::Normal, 0), &mut waiting);
        let own: Vec<_> = waiting.iter().filter(|(id, _)| tenant_of(**id) == free).collect();
        let (&id, &spot) = own[which.index(own.len())];
        let told = world.queue.starts_at_most(spot, id, &world.tenants, share_period, 2_000).unwrap();
        let others = later.into_iter().filter(|a_move| {
            !matches!(a_move, Move::Submit(_, priority, _) if *priority == spot.priority)
        });
        let mut starts = 0;
        for a_move in others {
            if let Some(started) = go_on(&mut world, a_move, &mut waiting) {
                starts += 1;
                if started == id {
                    break;
                }
                prop_assert!(starts < told, "{id} was told {told}");
            }
        }
    }
}
