//! Clients and the operator: what they ask for.

use std::time::Duration;

use wpool_pool::event::{DrainScope, Event, NewJob, RetryRule};
use wpool_pool::settings::{Settings, TenantRule, TenantRules};
use wpool_protocol::id::JobId;
use wpool_protocol::job::{Priority, RetryOn};

use crate::chance::Chance;
use crate::sim::knobs::Knobs;

/// The most slots that an operator asks for.
pub(crate) const SLOTS_MAX: u16 = 6;

/// All the tenants that there are.
const TENANTS: [&str; 4] = ["ann", "bob", "cyd", "dan"];

/// A job as some client would submit it.
pub(crate) fn job(id: JobId, knobs: &Knobs, chance: &mut Chance) -> NewJob {
    let [high, normal, low] = Priority::ALL;
    NewJob {
        id,
        tenant: TENANTS[usize::try_from(chance.up_to(knobs.tenants - 1)).unwrap_or(0)].to_owned(),
        priority: match chance.up_to(9) {
            0..=4 => high,
            5..=7 => normal,
            _ => low,
        },
        rank: if chance.permille(knobs.ranked) {
            i32::try_from(chance.up_to(4)).unwrap_or(0) - 2
        } else {
            0
        },
        bytes: chance.up_to(100),
        run_time_max: Duration::from_millis(chance.between(1, 400)),
        delay: if chance.permille(knobs.delayed) {
            chance.within_ms(500)
        } else {
            Duration::ZERO
        },
        start_within: chance
            .permille(knobs.expiring)
            .then(|| chance.within_ms(400)),
        attempts_max: u32::try_from(chance.between(1, u64::from(knobs.attempts_max))).unwrap_or(1),
        retry_on: retry_rule(knobs, chance),
    }
}

fn retry_rule(knobs: &Knobs, chance: &mut Chance) -> RetryRule {
    let mut rule = if chance.permille(knobs.unrepeatable) {
        RetryRule::NEVER
    } else {
        RetryRule::WORKER_LOST
    };
    for reason in RetryOn::ALL {
        if chance.permille(knobs.retried) {
            rule = rule.and(reason);
        }
    }
    rule
}

/// Something an operator would ask for, when so many jobs have been accepted.
pub(crate) fn request(knobs: &Knobs, accepted: u64, chance: &mut Chance) -> Event {
    match chance.up_to(10) {
        0 => Event::PauseRequested,
        1 => Event::DrainRequested(DrainScope::Running),
        2 => Event::DrainRequested(DrainScope::Queued),
        3 => Event::SettingsChanged(Box::new(Settings {
            queue_jobs: chance.between(0, 40),
            queue_bytes: chance.between(0, 3_000),
            share_period: u32::try_from(chance.between(0, 12)).unwrap_or(10),
            restart_burst: u32::try_from(chance.between(0, 6)).unwrap_or(5),
            ping_interval: chance.within_ms(300),
            silence_max: chance.within_ms(600),
            overrun_slack: chance.within_ms(300),
            ..knobs.settings()
        })),
        4 => Event::TenantRulesChanged(rules(knobs, chance)),
        5 => Event::ResizeRequested(u16::try_from(chance.up_to(u64::from(SLOTS_MAX))).unwrap_or(1)),
        6 => Event::ClearRequested {
            submitted: accepted.saturating_sub(chance.up_to(3)),
            most: u32::try_from(chance.between(1, 20)).unwrap_or(1),
        },
        7 => Event::RecycleRequested,
        _ => Event::ResumeRequested,
    }
}

/// What tenants may take, as some operator would decide.
pub(crate) fn rules(knobs: &Knobs, chance: &mut Chance) -> TenantRules {
    let mut rule = || TenantRule {
        weight: u32::try_from(chance.between(1, 9)).unwrap_or(1),
        running_max: chance
            .permille(knobs.tenants_held)
            .then(|| u32::try_from(chance.between(1, 3)).unwrap_or(1)),
        queue_jobs: chance
            .permille(knobs.tenants_bounded)
            .then(|| chance.between(0, 20)),
    };
    let default = rule();
    let named = TENANTS.iter().skip(1).map(|name| ((*name).into(), rule()));
    TenantRules {
        named: named.collect(),
        default,
    }
}
