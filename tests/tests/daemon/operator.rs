//! What an operator does to a pool at work: resize, clear, and what tenants may take.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use serde_json::{Value, json};
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::{Daemon, GATE, feed};

pub(crate) const TESTS: &[Test] = &[
    test!(a_pool_is_resized_under_load_and_loses_nothing),
    test!(workers_are_recycled_one_by_one_under_load),
    test!(a_worker_is_replaced_after_its_share_of_jobs),
    test!(a_cleared_queue_tells_every_job_and_leaves_what_runs),
    test!(low_work_starts_behind_an_endless_stream_of_high),
    test!(a_small_tenant_is_done_while_a_large_one_waits),
    test!(three_to_one_is_three_to_one),
    test!(limits_hold_while_sixteen_clients_push),
    test!(a_tenant_takes_no_more_than_it_may),
    test!(a_job_is_tried_again_as_it_asks, "python3"),
];

/// Submits a job and gives its id.
pub(super) fn submit(daemon: &Daemon, job: &Value) -> anyhow::Result<String> {
    let answer = daemon.post("/v1/jobs", job)?;
    ensure!(answer.status == 201, "{answer:?}");
    let id = answer.json()?["id"].as_str().map(str::to_owned);
    id.context("no id")
}

pub(super) fn outcome(daemon: &Daemon, id: &str) -> anyhow::Result<Value> {
    let answer = daemon.get(&format!("/v1/jobs/{id}/result?wait=60s"))?;
    ensure!(answer.status == 200, "{answer:?}");
    answer.json()
}

fn a_pool_is_resized_under_load_and_loses_nothing() -> anyhow::Result<()> {
    let mut daemon = Daemon::start(2)?;
    let job = json!({"command": ["sh", "-c", "sleep 0.02; echo done"]});
    let ids: Vec<_> = (0..120)
        .map(|_| submit(&daemon, &job))
        .collect::<Result<_, _>>()?;
    for workers in [8, 1, 3] {
        let said = daemon.wpool(["pool", "resize", &workers.to_string()])?;
        ensure!(said.code == 0, "{said:?}");
        daemon.wait_until("it has its new size", |daemon| {
            Ok(daemon.status()?["workers"].as_array().map(Vec::len) == Some(workers))
        })?;
    }
    for id in &ids {
        let outcome = outcome(&daemon, id)?;
        ensure!(outcome["stdout"] == "done\n", "{outcome}");
        let attempts = outcome["attempts"].as_array().map(Vec::len);
        ensure!(attempts == Some(1), "a resize cost an attempt: {outcome}");
    }
    for workers in ["0", "5000", "two"] {
        let said = daemon.wpool(["pool", "resize", workers])?;
        ensure!(
            said.code != 0 && said.stderr.lines().count() == 1,
            "{said:?}"
        );
    }
    Ok(())
}

/// How many workers take jobs or have one.
fn up(status: &Value) -> usize {
    let workers = status["workers"].as_array().into_iter().flatten();
    let is_up = |worker: &&Value| worker["state"] == "idle" || worker["state"] == "busy";
    workers.filter(is_up).count()
}

/// The generations of the first so many slots.
fn generations(status: &Value, slots: usize) -> Vec<u64> {
    let workers = status["workers"].as_array().into_iter().flatten();
    let generation = |worker: &Value| worker["generation"].as_u64().unwrap_or(0);
    workers.take(slots).map(generation).collect()
}

fn workers_are_recycled_one_by_one_under_load() -> anyhow::Result<()> {
    let mut daemon = Daemon::start(2)?;
    let job = json!({"command": ["sh", "-c", "sleep 0.02; echo done"]});
    let ids: Vec<_> = (0..100)
        .map(|_| submit(&daemon, &job))
        .collect::<Result<_, _>>()?;
    daemon.wait_until("both work", |daemon| Ok(up(&daemon.status()?) == 2))?;
    let said = daemon.wpool(["pool", "recycle"])?;
    ensure!(said.code == 0, "{said:?}");
    daemon.wait_until("both are new, and the spare is gone", |daemon| {
        let status = daemon.status()?;
        ensure!(up(&status) >= 2, "too few are up: {status}");
        let there = status["workers"].as_array().map(Vec::len);
        Ok(generations(&status, 2) == [2, 2] && there == Some(2))
    })?;
    for id in &ids {
        let outcome = outcome(&daemon, id)?;
        ensure!(outcome["stdout"] == "done\n", "{outcome}");
        let attempts = outcome["attempts"].as_array().map(Vec::len);
        ensure!(attempts == Some(1), "recycling cost an attempt: {outcome}");
    }
    let status = daemon.status()?;
    let crashes = |worker: &Value| worker["crashes"] != 0;
    let workers = status["workers"].as_array().context("no workers")?;
    ensure!(!workers.iter().any(crashes), "{status}");
    Ok(())
}

fn a_worker_is_replaced_after_its_share_of_jobs() -> anyhow::Result<()> {
    let mut daemon = Daemon::start_with(1, "[pool]\nrecycle_jobs = 5\n")?;
    for _ in 0..5 {
        let outcome = daemon.outcome_of(&json!({"command": ["true"]}))?;
        ensure!(outcome["state"] == "succeeded", "{outcome}");
    }
    daemon.wait_until("its worker is a new one", |daemon| {
        let status = daemon.status()?;
        Ok(generations(&status, 1) == [2] && up(&status) >= 1)
    })?;
    // And at an age, without any job.
    let daemon = &mut Daemon::start_with(1, "[pool]\nrecycle_age_ms = 300\n")?;
    daemon.wait_until("its worker is a new one again and again", |daemon| {
        Ok(generations(&daemon.status()?, 1).first() >= Some(&3))
    })?;
    let outcome = daemon.outcome_of(&json!({"command": ["true"]}))?;
    ensure!(outcome["state"] == "succeeded", "{outcome}");
    Ok(())
}

fn a_cleared_queue_tells_every_job_and_leaves_what_runs() -> anyhow::Result<()> {
    let mut daemon = Daemon::start_gated(1, "")?;
    let job = json!({"command": ["sh", "-c", format!("{GATE}; exit 3")]});
    let runs = submit(&daemon, &job)?;
    daemon.wait_until("it runs", |daemon| Ok(daemon.status()?["active"] == 1))?;
    let job = json!({"command": ["true"], "delay_ms": 0});
    let waiting: Vec<_> = (0..450)
        .map(|_| submit(&daemon, &job))
        .collect::<Result<_, _>>()?;
    let said = daemon.wpool(["pool", "clear", "--json"])?;
    ensure!(said.json()?["cleared"] == 450, "{said:?}");
    for id in &waiting {
        let outcome = outcome(&daemon, id)?;
        ensure!(outcome["state"] == "cancelled", "{outcome}");
        ensure!(outcome["cause"]["kind"] == "cleared", "{outcome}");
    }
    daemon.open_gate()?;
    ensure!(outcome(&daemon, &runs)?["exit_code"] == 3);
    ensure!(daemon.status()?["queued"]["total"] == 0);
    Ok(())
}

/// The order in which jobs were started, by their labels.
fn order_of_starts(daemon: &Daemon, ids: &[String]) -> anyhow::Result<Vec<String>> {
    let mut starts = Vec::new();
    for id in ids {
        let outcome = outcome(daemon, id)?;
        let started = outcome["started_at"]
            .as_str()
            .context("no start")?
            .to_owned();
        let name = outcome["labels"]["name"].as_str().unwrap_or_default();
        starts.push((started, name.to_owned()));
    }
    starts.sort();
    Ok(starts.into_iter().map(|(_, name)| name).collect())
}

fn low_work_starts_behind_an_endless_stream_of_high() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    ensure!(daemon.wpool(["pool", "pause"])?.code == 0);
    // Long enough for their starts to be told apart by the ms of their time.
    let job = |priority: &str| json!({"command": ["sleep", "0.003"], "priority": priority, "labels": {"name": priority}});
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(submit(&daemon, &job("high"))?);
    }
    for _ in 0..3 {
        ids.push(submit(&daemon, &job("low"))?);
    }
    ensure!(daemon.wpool(["pool", "resume"])?.code == 0);
    let order = order_of_starts(&daemon, &ids)?;
    let low = order.iter().enumerate().filter(|(_, name)| *name == "low");
    let low: Vec<_> = low.map(|(place, _)| place).collect();
    ensure!(
        low == [9, 19, 29],
        "low jobs are number {low:?} of {order:?}"
    );
    Ok(())
}

fn a_small_tenant_is_done_while_a_large_one_waits() -> anyhow::Result<()> {
    let daemon = Daemon::start_with(1, "[tenant.heavy]\nweight = 3\n")?;
    ensure!(daemon.wpool(["pool", "pause"])?.code == 0);
    let job = |tenant: &str| json!({"command": ["sleep", "0.003"], "tenant": tenant, "labels": {"name": tenant}});
    let mut ids = Vec::new();
    for (tenant, count) in [("large", 100), ("small", 10), ("heavy", 60)] {
        for _ in 0..count {
            ids.push(submit(&daemon, &job(tenant))?);
        }
    }
    ensure!(daemon.wpool(["pool", "resume"])?.code == 0);
    let order = order_of_starts(&daemon, &ids)?;
    let among = |first: usize, tenant: &str| {
        order
            .iter()
            .take(first)
            .filter(|name| *name == tenant)
            .count()
    };
    // 1 : 1 : 3 as long as all three wait.
    let shares = ["large", "small", "heavy"].map(|tenant| among(50, tenant));
    ensure!(shares == [10, 10, 30], "{shares:?} of {order:?}");
    Ok(())
}

fn three_to_one_is_three_to_one() -> anyhow::Result<()> {
    const STARTS: u64 = 1_000;
    let config = "[tenant.heavy]\nweight = 3\n[tenant.light]\nweight = 1\n";
    let mut daemon = Daemon::start_with(1, config)?;
    ensure!(daemon.wpool(["pool", "pause"])?.code == 0);
    let line = |tenant: &str| format!("{{\"command\": [\"true\"], \"tenant\": \"{tenant}\"}}\n");
    // More than can start: both wait throughout.
    let jobs = line("heavy").repeat(900) + &line("light").repeat(400);
    let batch = feed(daemon.client(["submit", "--batch", "-"]), jobs.as_bytes())?;
    ensure!(batch.code == 0, "{batch:?}");
    ensure!(daemon.wpool(["pool", "resume"])?.code == 0);
    daemon.wait_until("a thousand have started", |daemon| {
        Ok(daemon.status()?["completed"].as_u64() >= Some(STARTS))
    })?;
    ensure!(daemon.wpool(["pool", "pause"])?.code == 0);
    let ended = |tenant: &str| -> anyhow::Result<f64> {
        let path = format!("/v1/jobs?state=succeeded&tenant={tenant}&limit=1000");
        let jobs = daemon.get(&path)?.json()?;
        let count = jobs["jobs"].as_array().map_or(0, Vec::len);
        Ok(f64::from(u32::try_from(count)?))
    };
    let (heavy, light) = (ended("heavy")?, ended("light")?);
    ensure!(
        heavy < 900.0 && light < 400.0,
        "too late: {heavy} and {light}"
    );
    ensure!(
        (2.85..=3.15).contains(&(heavy / light)),
        "{heavy} to {light}"
    );
    Ok(())
}

/// One client that hands in jobs until so many of its own are accepted, and does as it is told when one is refused.
fn push(daemon: &Daemon, job: &Value, jobs: usize) -> anyhow::Result<(Vec<String>, Vec<Value>)> {
    let (mut accepted, mut refusals) = (Vec::new(), Vec::new());
    while accepted.len() < jobs {
        let answer = daemon.post("/v1/jobs", job)?;
        let said = answer.json()?;
        match answer.status {
            201 => accepted.push(said["id"].as_str().context("no id")?.to_owned()),
            429 => {
                let wait = said["retry_after_ms"]
                    .as_u64()
                    .context("no retry_after_ms")?;
                // What a client that obeys does.
                std::thread::park_timeout(Duration::from_millis(wait));
                refusals.push(said);
            }
            _ => bail!("{answer:?}"),
        }
    }
    Ok((accepted, refusals))
}

fn limits_hold_while_sixteen_clients_push() -> anyhow::Result<()> {
    // Small jobs are held up by the count and large ones by the bytes; of both, one tenant by its own limit.
    let config = "[pool]\nqueue_jobs = 8\nqueue_bytes = \"700K\"\n[tenant.small]\nqueue_jobs = 3\n";
    let daemon = Daemon::start_with(2, config)?;
    let of_tenant = ("tenant.queue_jobs".to_owned(), 3);
    for (bytes, most, limit) in [
        (100, 8, ("queue_jobs".to_owned(), 8)),
        (120_000, 5, ("queue_bytes".to_owned(), 700 << 10)),
    ] {
        let named = sixteen_push(&daemon, bytes, most)?;
        let expected = BTreeMap::from([limit, of_tenant.clone()]);
        ensure!(named == expected, "{named:?}");
    }
    Ok(())
}

/// Sixteen clients hand in jobs of so many bytes, of which so many fit: the limits that refusals named, with their values.
fn sixteen_push(daemon: &Daemon, bytes: usize, fit: u64) -> anyhow::Result<BTreeMap<String, u64>> {
    let done = AtomicBool::new(false);
    let (seen, pushed) = std::thread::scope(|scope| {
        let onlooker = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                let status = daemon.status()?;
                let there = [&status["active"], &status["queued"]["total"]];
                most = most.max(there.iter().filter_map(|count| count.as_u64()).sum());
            }
            anyhow::Ok(most)
        });
        let clients: Vec<_> = (0..16)
            .map(|n| {
                let tenant = if n % 4 == 0 { "small" } else { "large" };
                let stdin = "x".repeat(bytes);
                let job = json!({"command": ["true"], "tenant": tenant, "stdin": stdin});
                scope.spawn(move || push(daemon, &job, 12))
            })
            .collect();
        let pushed: Vec<_> = clients
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Ordering::Relaxed);
        (onlooker.join(), pushed)
    });
    let most = seen.map_err(|_| anyhow!("the onlooker panicked"))??;
    ensure!(most <= fit, "{most} jobs were there at one time");
    let mut limits = BTreeMap::new();
    for client in pushed {
        let (accepted, refusals) = client.map_err(|_| anyhow!("a client panicked"))??;
        for id in accepted {
            let outcome = outcome(daemon, &id)?;
            ensure!(outcome["state"] == "succeeded", "{outcome}");
        }
        for refusal in refusals {
            let limit = refusal["limit"].as_str().context("no limit")?.to_owned();
            *limits.entry(limit).or_insert(0) = refusal["allowed"].as_u64().unwrap_or(0);
        }
    }
    Ok(limits)
}

fn a_tenant_takes_no_more_than_it_may() -> anyhow::Result<()> {
    let mut daemon = Daemon::start_gated(
        3,
        "[tenant.small]\nrunning_max = 1\nqueue_jobs = 4\n[tenant.default]\nqueue_jobs = 50\n",
    )?;
    let job = json!({"command": ["sh", "-c", GATE], "tenant": "small"});
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(submit(&daemon, &job)?);
    }
    let refused = daemon.post("/v1/jobs", &job)?;
    ensure!(refused.status == 429, "{refused:?}");
    let problem = refused.json()?;
    ensure!(problem["limit"] == "tenant.queue_jobs", "{problem}");
    ensure!(problem["allowed"] == 4, "{problem}");
    let wait = problem["retry_after_ms"].as_u64().context("no wait")?;
    ensure!(wait > 0, "{problem}");
    // Two of three workers idle, and only one job of the tenant's runs.
    daemon.wait_until("one runs", |daemon| Ok(daemon.status()?["active"] == 1))?;
    ensure!(
        daemon.status()?["queued"]["total"] == 3,
        "{}",
        daemon.status()?
    );
    let other = daemon.outcome_of(&json!({"command": ["echo", "hi"]}))?;
    ensure!(other["stdout"] == "hi\n", "{other}");
    daemon.open_gate()?;
    let spans = ids
        .iter()
        .map(|id| {
            let outcome = outcome(&daemon, id)?;
            let at = |name: &str| outcome[name].as_str().unwrap_or_default().to_owned();
            anyhow::Ok((at("started_at"), at("ended_at")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let apart = spans.windows(2).all(|pair| pair[0].1 <= pair[1].0);
    ensure!(apart, "two ran at one time: {spans:?}");
    ensure!(
        daemon.post("/v1/jobs", &job)?.status == 201,
        "there is room again"
    );
    Ok(())
}

fn a_job_is_tried_again_as_it_asks() -> anyhow::Result<()> {
    let daemon = Daemon::start(1)?;
    let sh = ["sh", "-c", "echo tried; exit 7"];
    let outcome = daemon.outcome_of(&json!({"command": sh, "retry_on": ["failed"]}))?;
    ensure!(
        outcome["state"] == "failed" && outcome["exit_code"] == 7,
        "{outcome}"
    );
    let attempts = outcome["attempts"].as_array().context("no attempts")?;
    ensure!(attempts.len() == 3, "{outcome}");
    ensure!(
        attempts.iter().all(|attempt| attempt["end"] == "exited"),
        "{outcome}"
    );
    // Of those that did not decide it the last words stay.
    ensure!(attempts[0]["stdout_tail"] == "tried\n", "{outcome}");
    let once = daemon.outcome_of(&json!({"command": sh}))?;
    ensure!(
        once["attempts"].as_array().map(Vec::len) == Some(1),
        "{once}"
    );
    // 150 MB fit in at the second try, with twice the memory.
    let code = "data = bytearray(150 << 20)\nfor n in range(0, len(data), 4096): data[n] = 1\nimport time; time.sleep(0.5)";
    let job = json!({
        "command": ["python3", "-c", code], "limits": {"memory_bytes": 100 << 20},
        "retry_on": ["memory"], "memory_growth": 2,
    });
    let outcome = daemon.outcome_of(&job)?;
    ensure!(outcome["state"] == "succeeded", "{outcome}");
    let attempts = outcome["attempts"].as_array().context("no attempts")?;
    let ends: Vec<_> = attempts.iter().map(|attempt| &attempt["end"]).collect();
    ensure!(ends == ["limit", "exited"], "{outcome}");
    let said = daemon.wpool(["submit", "--retry-on", "never,failed", "--", "true"])?;
    ensure!(
        said.code == 125 && said.stderr.lines().count() == 1,
        "{said:?}"
    );
    let refused = daemon.post(
        "/v1/jobs",
        &json!({"command": ["true"], "memory_growth": 0.5}),
    )?;
    ensure!(refused.status == 422, "{refused:?}");
    Ok(())
}
