//! A client that writes down what it asked for and what it was told.

use std::io::Write as _;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use wpool_tests::chance::Chance;
use wpool_tests::wpool::{Answer, Daemon};

use super::task::{Task, Wish};

/// Jobs that a client has under way at one time.
const AT_ONCE: usize = 8;

/// What a client knows of one job.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) task: Task,
    pub(crate) wish: Wish,
    /// `None` where it came to forget a job that it wanted to cancel: that had ended already.
    pub(crate) outcome: Option<Value>,
}

/// Submits so many jobs and hears of the end of each.
pub(crate) fn live(
    daemon: &Daemon,
    number: usize,
    jobs: usize,
    mut chance: Chance,
) -> anyhow::Result<Vec<Entry>> {
    let mut ledger = Vec::new();
    let mut under_way = Vec::new();
    for n in 0..jobs {
        let task = Task::new(format!("{number}-{n}"), &mut chance);
        under_way.push(submit(daemon, task, &mut chance)?);
        if under_way.len() == AT_ONCE || n + 1 == jobs {
            for entry in under_way.drain(..) {
                ledger.push(finish(daemon, entry)?);
            }
        }
    }
    Ok(ledger)
}

fn submit(daemon: &Daemon, task: Task, chance: &mut Chance) -> anyhow::Result<Entry> {
    let request = task.request(chance);
    if chance.permille(100) {
        vanish(daemon, &request, chance)?;
    }
    let answer = daemon.post("/v1/jobs", &request)?;
    let submitted = answer.json()?;
    ensure!(matches!(answer.status, 200 | 201), "{answer:?}");
    Ok(Entry {
        id: submitted["id"].as_str().context("no id")?.to_owned(),
        task,
        wish: if chance.permille(80) {
            Wish::Cancelled
        } else {
            Wish::Outcome
        },
        outcome: None,
    })
}

/// Asks for it, all or a part, and is gone before the answer comes.
fn vanish(daemon: &Daemon, request: &Value, chance: &mut Chance) -> anyhow::Result<()> {
    let mut stream = daemon.connect()?;
    let body = request.to_string();
    let whole = format!(
        "POST /v1/jobs?wait=60s HTTP/1.1\r\nhost: wpool\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let len = if chance.permille(500) {
        whole.len()
    } else {
        usize::try_from(chance.up_to(whole.len().try_into()?))?
    };
    stream.write_all(&whole.as_bytes()[..len])?;
    Ok(())
}

fn finish(daemon: &Daemon, mut entry: Entry) -> anyhow::Result<Entry> {
    let path = format!("/v1/jobs/{}", entry.id);
    if entry.wish == Wish::Cancelled {
        let answer = daemon.ask("DELETE", &path, None)?;
        match answer.status {
            202 => {}
            204 => return Ok(entry),
            _ => anyhow::bail!("{answer:?}"),
        }
    }
    let Answer { status, body, .. } = daemon.get(&format!("{path}/result?wait=60s"))?;
    ensure!(status == 200, "{entry:?}: {status} {body}");
    entry.outcome = Some(serde_json::from_str(&body)?);
    Ok(entry)
}
