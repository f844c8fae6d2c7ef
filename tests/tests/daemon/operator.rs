//! What an operator does to a pool at work: resize, clear, and what tenants may take.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::Daemon;

pub(crate) const TESTS: &[Test] = &[
    test!(a_pool_is_resized_under_load_and_loses_nothing),
    test!(a_cleared_queue_tells_every_job_and_leaves_what_runs),
    test!(low_work_starts_behind_an_endless_stream_of_high),
    test!(a_small_tenant_is_done_while_a_large_one_waits),
    test!(a_tenant_takes_no_more_than_it_may),
    test!(every_wait_is_explained_by_the_number_that_decides),
];

/// Submits a job and gives its id.
fn submit(daemon: &Daemon, job: &Value) -> anyhow::Result<String> {
    let answer = daemon.post("/v1/jobs", job)?;
    ensure!(answer.status == 201, "{answer:?}");
    let id = answer.json()?["id"].as_str().map(str::to_owned);
    id.context("no id")
}

fn outcome(daemon: &Daemon, id: &str) -> anyhow::Result<Value> {
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

fn a_cleared_queue_tells_every_job_and_leaves_what_runs() -> anyhow::Result<()> {
    let mut daemon = Daemon::start(1)?;
    let runs = submit(
        &daemon,
        &json!({"command": ["sh", "-c", "sleep 0.5; exit 3"]}),
    )?;
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

fn a_tenant_takes_no_more_than_it_may() -> anyhow::Result<()> {
    let mut daemon = Daemon::start_with(
        3,
        "[tenant.small]\nrunning_max = 1\nqueue_jobs = 4\n[tenant.default]\nqueue_jobs = 50\n",
    )?;
    let job = json!({"command": ["sleep", "0.5"], "tenant": "small"});
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

fn every_wait_is_explained_by_the_number_that_decides() -> anyhow::Result<()> {
    let mut daemon = Daemon::start_with(
        1,
        "[tenant.small]\nrunning_max = 1\n[pool]\nbackoff_min_ms = 60000\nbackoff_max_ms = 60000\n",
    )?;
    let why = |daemon: &Daemon, id: &str| daemon.get(&format!("/v1/jobs/{id}/explain"))?.json();
    let text = |why: &Value| why["text"].as_str().unwrap_or_default().to_owned();
    let says = |why: &Value, words: &[&str]| -> anyhow::Result<()> {
        let missing = words.iter().find(|word| !text(why).contains(**word));
        ensure!(missing.is_none(), "{missing:?} is not in {why}");
        Ok(())
    };
    // 1 and 2: on a slot, and behind it.
    let runs = submit(
        &daemon,
        &json!({"command": ["sleep", "60"], "limits": {"timeout_ms": 61_000}}),
    )?;
    daemon.wait_until("it runs", |daemon| {
        Ok(text(&why(daemon, &runs)?).contains("is killed if it has not ended"))
    })?;
    says(
        &why(&daemon, &runs)?,
        &["attempt 1 of at most 3", "slot 0", "generation 1"],
    )?;
    let first = submit(&daemon, &json!({"command": ["true"], "tenant": "small"}))?;
    let second = submit(&daemon, &json!({"command": ["true"], "tenant": "small"}))?;
    let told = why(&daemon, &first)?;
    says(
        &told,
        &[
            "1 busy, 0 starting",
            "it is the next to start",
            "among the next 10 starts",
        ],
    )?;
    ensure!(told["waits"]["because"] == "no_idle_slot", "{told}");
    let told = why(&daemon, &second)?;
    says(
        &told,
        &["1 job starts before it", "among the next 20 starts"],
    )?;
    ensure!(told["waits"]["first_ahead"] == json!([first]), "{told}");
    // 3: of a lower class; 4: with a time by which it expires.
    let low = submit(
        &daemon,
        &json!({"command": ["true"], "priority": "low", "start_within_ms": 50_000}),
    )?;
    let told = why(&daemon, &low)?;
    says(
        &told,
        &[
            "2 jobs start before it",
            "among the next 10 starts",
            "it expires in 4",
        ],
    )?;
    // 5: not before its time.
    let later = submit(&daemon, &json!({"command": ["true"], "delay_ms": 40_000}))?;
    let told = why(&daemon, &later)?;
    says(&told, &["not to start before 39.", "delay_ms"])?;
    ensure!(
        told["waits"]["for_ms"]
            .as_u64()
            .is_some_and(|ms| ms <= 40_000),
        "{told}"
    );
    // 6 and 7: the pool is paused, or drains.
    ensure!(daemon.wpool(["pool", "pause"])?.code == 0);
    says(
        &why(&daemon, &first)?,
        &["paused", "wpool pool resume", "next to start"],
    )?;
    ensure!(
        daemon
            .get("/v1/pool/explain")?
            .body
            .contains("somebody paused it")
    );
    ensure!(daemon.wpool(["pool", "resume"])?.code == 0);
    ensure!(daemon.wpool(["pool", "drain"])?.code == 0);
    says(&why(&daemon, &first)?, &["drains", "wpool pool resume"])?;
    ensure!(
        daemon
            .get("/v1/pool/explain")?
            .body
            .contains("jobs are refused, 1 run and 4 wait")
    );
    ensure!(daemon.wpool(["pool", "resume"])?.code == 0);
    // 8: its worker was lost.
    let worker = daemon.workers()?[0];
    nix::sys::signal::kill(worker, nix::sys::signal::Signal::SIGKILL)?;
    daemon.wait_until("it waits again", |daemon| {
        Ok(why(daemon, &runs)?["waits"]["because"] == "backoff")
    })?;
    let told = why(&daemon, &runs)?;
    says(
        &told,
        &["workers lost over it: 1 of at most 3", "start again in "],
    )?;
    let attempt = told["attempts"][0].as_str().unwrap_or_default();
    ensure!(
        attempt.contains("generation 1") && attempt.contains("SIGKILL"),
        "{told}"
    );
    // 9: the limit of its tenant, though a slot idles.
    ensure!(outcome(&daemon, &second)?["state"] == "succeeded");
    let holds = submit(
        &daemon,
        &json!({"command": ["sleep", "60"], "tenant": "small"}),
    )?;
    ensure!(daemon.wpool(["pool", "resize", "2"])?.code == 0);
    daemon.wait_until("one runs, one idles", |daemon| {
        let status = daemon.status()?;
        let slots = status["workers"].as_array().cloned().unwrap_or_default();
        Ok(status["active"] == 1 && slots.iter().any(|slot| slot["state"] == "idle"))
    })?;
    let held = submit(&daemon, &json!({"command": ["true"], "tenant": "small"}))?;
    let told = why(&daemon, &held)?;
    says(&told, &["tenant small has 1 running", "running_max is 1"])?;
    ensure!(told["waits"]["because"] == "tenant_running_max", "{told}");
    // 10 to 15: how jobs ended.
    let ended = |job: Value, words: &[&str]| -> anyhow::Result<()> {
        let id = daemon.outcome_of(&job)?["id"].clone();
        let told = daemon.get(&format!(
            "/v1/jobs/{}/explain",
            id.as_str().unwrap_or_default()
        ))?;
        let told = told.json()?;
        let missing = words.iter().find(|word| !told.to_string().contains(**word));
        ensure!(missing.is_none(), "{missing:?} is not in {told}");
        Ok(())
    };
    ended(
        json!({"command": ["true"]}),
        &["it exited with code 0", "attempt 1 on slot"],
    )?;
    ended(
        json!({"command": ["sh", "-c", "exit 7"]}),
        &["it exited with code 7"],
    )?;
    ended(
        json!({"command": ["sh", "-c", "kill -SEGV $$"]}),
        &["SIGSEGV"],
    )?;
    ended(
        json!({"command": ["no-such-program"]}),
        &["no such program"],
    )?;
    ended(
        json!({"command": ["sleep", "60"], "limits": {"timeout_ms": 100}}),
        &["100 ms, its wall time limit"],
    )?;
    ended(
        json!({"command": ["sh", "-c", "while :; do :; done"], "limits": {"cpu_ms": 200}}),
        &["CPU time reached 200 ms, its limit"],
    )?;
    // 16: cancelled; 17: cleared away.
    ensure!(
        daemon
            .ask("DELETE", &format!("/v1/jobs/{holds}"), None)?
            .status
            == 202
    );
    outcome(&daemon, &holds)?;
    says(&why(&daemon, &holds)?, &["somebody asked for its end"])?;
    ensure!(daemon.wpool(["pool", "clear"])?.code == 0);
    says(&why(&daemon, &later)?, &["an operator cleared the queue"])?;
    // 18 and 19: the pool and its slots; 20: what is not there.
    let pool = daemon.wpool(["explain"])?;
    ensure!(
        pool.stdout.contains("slot 0, idle: worker 2 has waited"),
        "{pool:?}"
    );
    let slot = daemon.wpool(["explain", "--slot", "1"])?;
    ensure!(
        slot.stdout.starts_with("idle: worker 1 has waited"),
        "{slot:?}"
    );
    let none = daemon.wpool(["explain", "0000000000001"])?;
    ensure!(
        none.code == 125 && none.stderr.contains("no such job"),
        "{none:?}"
    );
    Ok(())
}
