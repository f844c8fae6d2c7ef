//! `explain`, asked in twenty situations: the sentence is true, and names the number that decides.

use anyhow::ensure;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::Daemon;

use super::operator::{outcome, submit};

pub(crate) const TESTS: &[Test] = &[
    test!(explain_tells_where_a_job_stands_in_the_queue),
    test!(explain_tells_what_keeps_the_whole_pool_from_starting),
    test!(explain_tells_what_keeps_one_job_from_starting),
    test!(explain_tells_how_a_job_ended),
    test!(explain_tells_of_slots_and_of_what_is_not_there),
    test!(
        explain_tells_of_each_attempt_what_ended_it_and_what_the_next_has_more,
        "python3"
    ),
    test!(explain_tells_when_what_runs_is_ended),
    test!(explain_tells_what_a_slot_was_parked_for),
];

fn why(daemon: &Daemon, id: &str) -> anyhow::Result<Value> {
    daemon.get(&format!("/v1/jobs/{id}/explain"))?.json()
}

fn says(why: &Value, words: &[&str]) -> anyhow::Result<()> {
    let text = why["text"].as_str().unwrap_or_default();
    let missing = words.iter().find(|word| !text.contains(**word));
    ensure!(missing.is_none(), "{missing:?} is not in {why}");
    Ok(())
}

/// A job that occupies a slot until it is ended.
fn occupy(daemon: &mut Daemon) -> anyhow::Result<String> {
    let job = json!({"command": ["sleep", "60"], "limits": {"timeout_ms": 61_000}});
    let id = submit(daemon, &job)?;
    daemon.wait_until("it runs", |daemon| {
        Ok(why(daemon, &id)?
            .to_string()
            .contains("it is ended 61 s after its program began"))
    })?;
    Ok(id)
}

fn explain_tells_where_a_job_stands_in_the_queue() -> anyhow::Result<()> {
    let mut daemon = Daemon::start(1)?;
    let runs = occupy(&mut daemon)?;
    let told = why(&daemon, &runs)?;
    says(&told, &["attempt 1 of at most 3", "slot 0", "generation 1"])?;
    let first = submit(&daemon, &json!({"command": ["true"]}))?;
    let second = submit(&daemon, &json!({"command": ["true"]}))?;
    let told = why(&daemon, &first)?;
    let words = [
        "1 busy, 0 starting",
        "the next to start",
        "among the next 10 starts",
    ];
    says(&told, &words)?;
    ensure!(told["waits"]["because"] == "no_idle_slot", "{told}");
    let told = why(&daemon, &second)?;
    says(
        &told,
        &["1 job starts before it", "among the next 20 starts"],
    )?;
    ensure!(told["waits"]["first_ahead"] == json!([first]), "{told}");
    let low = json!({"command": ["true"], "priority": "low", "start_within_ms": 50_000});
    let told = why(&daemon, &submit(&daemon, &low)?)?;
    let words = [
        "2 jobs start before it",
        "among the next 10 starts",
        "it expires in 4",
    ];
    says(&told, &words)?;
    let high = json!({"command": ["true"], "priority": "high"});
    let told = why(&daemon, &submit(&daemon, &high)?)?;
    says(&told, &["the next to start", "among the next 3 starts"])
}

fn explain_tells_what_keeps_the_whole_pool_from_starting() -> anyhow::Result<()> {
    let mut daemon = Daemon::start(1)?;
    occupy(&mut daemon)?;
    let waits = submit(&daemon, &json!({"command": ["true"]}))?;
    ensure!(daemon.wpool(["pool", "pause"])?.code == 0);
    says(
        &why(&daemon, &waits)?,
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
    says(&why(&daemon, &waits)?, &["drains", "wpool pool resume"])?;
    for (order, words) in [
        (&["pool", "drain"][..], "1 run and 1 wait, until"),
        (
            &["pool", "drain", "--queued"],
            "1 run and 1 that wait will, until",
        ),
        (
            &["pool", "pause"],
            "1 run and 1 wait, for somebody has paused it, too",
        ),
    ] {
        ensure!(daemon.wpool(order)?.code == 0);
        let pool = daemon.get("/v1/pool/explain")?.body;
        ensure!(pool.contains(words), "{order:?}: {pool}");
    }
    Ok(())
}

fn explain_tells_what_keeps_one_job_from_starting() -> anyhow::Result<()> {
    let mut daemon = Daemon::start_with(
        2,
        "[tenant.small]\nrunning_max = 1\n[pool]\nbackoff_min_ms = 60000\nbackoff_max_ms = 60000\n",
    )?;
    let later = submit(&daemon, &json!({"command": ["true"], "delay_ms": 40_000}))?;
    let told = why(&daemon, &later)?;
    says(&told, &["not to start before 39.", "delay_ms"])?;
    let for_ms = told["waits"]["for_ms"].as_u64();
    ensure!(for_ms.is_some_and(|ms| ms <= 40_000), "{told}");
    // Its tenant's limit, though a slot idles.
    let holds = submit(
        &daemon,
        &json!({"command": ["sleep", "60"], "tenant": "small"}),
    )?;
    daemon.wait_until("it runs", |daemon| Ok(daemon.status()?["active"] == 1))?;
    let held = submit(&daemon, &json!({"command": ["true"], "tenant": "small"}))?;
    let told = why(&daemon, &held)?;
    let words = [
        "tenant small has 1 running",
        "running_max is 1",
        "once its tenant may start one, it is the next to start",
    ];
    says(&told, &words)?;
    ensure!(told["waits"]["because"] == "tenant_running_max", "{told}");
    // By how many starts it comes depends on when others end: no number would be true.
    ensure!(told["waits"].get("starts_at_most").is_none(), "{told}");
    // Its worker was lost.
    let status = daemon.status()?;
    let busy = status["workers"].as_array().into_iter().flatten();
    let mut busy = busy.filter(|slot| slot["state"] == "busy");
    let pid = busy.find_map(|slot| slot["pid"].as_i64());
    let pid = i32::try_from(pid.unwrap_or(0))?;
    kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL)?;
    daemon.wait_until("it waits again", |daemon| {
        Ok(why(daemon, &holds)?["waits"]["because"] == "backoff")
    })?;
    let told = why(&daemon, &holds)?;
    let words = [
        "attempt 1 of at most 3 is over",
        "it has cost 1 worker",
        "start again in ",
    ];
    says(&told, &words)?;
    let attempt = told["attempts"][0].as_str().unwrap_or_default();
    ensure!(
        attempt.contains("generation 1") && attempt.contains("SIGKILL"),
        "{told}"
    );
    Ok(())
}

fn explain_tells_how_a_job_ended() -> anyhow::Result<()> {
    let mut daemon = Daemon::start(1)?;
    let sh = |script: &str| json!({"command": ["sh", "-c", script]});
    for (job, words) in [
        (sh("exit 0"), &["it exited with code 0"][..]),
        (sh("exit 7"), &["it exited with code 7"]),
        (sh("kill -SEGV $$"), &["SIGSEGV"]),
        (
            json!({"command": ["no-such-program"]}),
            &["no such program"],
        ),
        (
            json!({"command": ["sleep", "60"], "limits": {"timeout_ms": 100}}),
            &["100 ms, its wall time limit"],
        ),
        (
            json!({"command": ["sh", "-c", "while :; do :; done"], "limits": {"cpu_ms": 200}}),
            &["CPU time reached 200 ms, its limit"],
        ),
    ] {
        let id = daemon.outcome_of(&job)?["id"].clone();
        let told = why(&daemon, id.as_str().unwrap_or_default())?;
        says(&told, words)?;
        let attempt = told["attempts"][0].as_str().unwrap_or_default();
        ensure!(attempt.contains("attempt 1 on slot 0"), "{told}");
    }
    let runs = occupy(&mut daemon)?;
    let waits = submit(&daemon, &json!({"command": ["true"]}))?;
    ensure!(daemon.wpool(["pool", "clear"])?.code == 0);
    says(&why(&daemon, &waits)?, &["an operator cleared the queue"])?;
    ensure!(daemon.wpool(["cancel", &runs])?.code == 0);
    outcome(&daemon, &runs)?;
    says(&why(&daemon, &runs)?, &["somebody asked for its end"])
}

fn explain_tells_of_slots_and_of_what_is_not_there() -> anyhow::Result<()> {
    let mut daemon = Daemon::start(2)?;
    let runs = occupy(&mut daemon)?;
    let pool = daemon.wpool(["explain"])?;
    ensure!(
        pool.stdout.starts_with("running: 1 running, 0 waiting\n"),
        "{pool:?}"
    );
    ensure!(
        pool.stdout
            .contains(&format!("worker 1 has had job {runs} for")),
        "{pool:?}"
    );
    // Whichever worker was up first has the job; the other one comes to be idle.
    daemon.wait_until("the other one is idle", |daemon| {
        let status = daemon.status()?;
        let mut workers = status["workers"].as_array().into_iter().flatten();
        let Some(idle) = workers.find(|worker| worker["state"] == "idle") else {
            return Ok(false);
        };
        let slot = daemon.wpool(["explain", "--slot", &idle["slot"].to_string()])?;
        let words = "idle: worker 1 has waited for a job";
        ensure!(slot.stdout.starts_with(words), "{slot:?}");
        Ok(true)
    })?;
    for (arguments, words) in [
        (["explain", "--slot=9"], "there is no slot 9"),
        (["explain", "0000000000001"], "no such job"),
    ] {
        let none = daemon.wpool(arguments)?;
        ensure!(none.code == 125 && none.stderr.contains(words), "{none:?}");
    }
    Ok(())
}

fn explain_tells_of_each_attempt_what_ended_it_and_what_the_next_has_more() -> anyhow::Result<()> {
    let config = "[pool]\nbackoff_min_ms = 60000\nbackoff_max_ms = 60000\n";
    let mut daemon = Daemon::start_with(1, config)?;
    let hungry = "x = bytearray(200 << 20)\nimport time; time.sleep(60)";
    let grows = submit(
        &daemon,
        &json!({
            "command": ["python3", "-c", hungry], "retry_on": ["memory"], "memory_growth": 2.0,
            "limits": {"memory_bytes": 64 << 20},
        }),
    )?;
    let fails = submit(
        &daemon,
        &json!({"command": ["sh", "-c", "exit 7"], "retry_on": ["failed"]}),
    )?;
    daemon.wait_until("both wait for another attempt", |daemon| {
        let waits = |id: &str| anyhow::Ok(why(daemon, id)?["waits"]["because"] == "backoff");
        Ok(waits(&grows)? && waits(&fails)?)
    })?;
    let told = why(&daemon, &grows)?;
    says(&told, &["with 128 MiB of memory instead of 64 MiB"])?;
    let attempt = told["attempts"][0].as_str().unwrap_or_default();
    let words = ["memory reached 64 MiB, its limit", "(its peak: "];
    ensure!(words.iter().all(|word| attempt.contains(word)), "{told}");
    let told = why(&daemon, &fails)?;
    let attempt = told["attempts"][0].as_str().unwrap_or_default();
    ensure!(attempt.contains("it exited with code 7"), "{told}");
    Ok(())
}

fn explain_tells_when_what_runs_is_ended() -> anyhow::Result<()> {
    let mut daemon = Daemon::start(2)?;
    let first = occupy(&mut daemon)?;
    let second = occupy(&mut daemon)?;
    ensure!(daemon.wpool(["pool", "resize", "1"])?.code == 0);
    let pool = daemon.get("/v1/pool/explain")?.json()?;
    let slots = pool["slots"].as_array().into_iter().flatten();
    let goes = slots.filter(|slot| {
        slot.to_string()
            .contains("its slot goes when that has ended")
    });
    ensure!(goes.count() == 1, "{pool}");
    for id in [&first, &second] {
        ensure!(daemon.wpool(["cancel", id])?.code == 0);
    }
    let graceful = submit(
        &daemon,
        &json!({"command": ["sleep", "60"], "limits": {"timeout_ms": 61_000, "grace_ms": 3_000}}),
    )?;
    daemon.wait_until("it runs", |daemon| {
        let words = "it is ended 61 s after its program began (SIGTERM, and 3 s later SIGKILL)";
        Ok(why(daemon, &graceful)?.to_string().contains(words))
    })?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.wait_until("it stops", |daemon| {
        Ok(daemon.status()?["state"] == "stopping")
    })?;
    let told = why(&daemon, &graceful)?;
    says(&told, &["the supervisor shuts down, and kills it in "])?;
    let pool = daemon.get("/v1/pool/explain")?.json()?;
    says(&pool, &["it shuts down: 1 job runs", "is killed in "])
}

fn explain_tells_what_a_slot_was_parked_for() -> anyhow::Result<()> {
    let config = "[pool]\nrestart_burst = 2\npark_min_ms = 200\n";
    let mut daemon = Daemon::start_with(1, config)?;
    // Whoever is there is stopped before it is ready, or killed right after.
    let mut said = Vec::new();
    daemon.wait_until("the slot was parked for a probe", |daemon| {
        let slot = &daemon.status()?["workers"][0];
        if let Some(pid) = slot["pid"].as_i64() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
            match kill(pid, Signal::SIGKILL) {
                // It may have ended by itself.
                Ok(()) | Err(_) => {}
            }
        }
        // Asked for once: between two questions the wait may be over.
        let slot = &daemon.get("/v1/pool/explain")?.json()?["slots"][0];
        if slot["state"] == "parked" {
            said.push(slot["text"].to_string());
            said.dedup();
        }
        Ok(said.iter().any(|text| text.contains(" time in a row")))
    })?;
    let burst = "2 workers of it ended within 30.0 s, before they were ready, right after, or because a job's box failed";
    ensure!(said.iter().any(|text| text.contains(burst)), "{said:?}");
    let next = said.iter().all(|text| text.contains("the next try is in "));
    ensure!(next, "{said:?}");
    Ok(())
}
