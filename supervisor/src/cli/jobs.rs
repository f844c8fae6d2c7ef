//! `wpool jobs`: a table of jobs, youngest first.

use clap::Args;
use wpool::client::{Client, JobFilter};
use wpool_protocol::id::JobId;
use wpool_protocol::job::Priority;
use wpool_protocol::outcome::JobState;
use wpool_protocol::status::{JobPage, JobSummary};

use super::screen::{Form, Screen, Tone, complain};
use super::table::{Cell, Table};
use super::{SocketArgs, outcome};

/// Jobs of one request; the daemon may give fewer.
const PAGE: u32 = 500;

/// Characters of a command in the table.
const COMMAND_WIDTH: usize = 60;

/// List jobs, youngest first
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wpool jobs --state running\n  wpool jobs --tenant acme --limit 1000 --json"
)]
pub(crate) struct JobsArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Only jobs in this state
    #[arg(long, value_parser = state)]
    state: Option<JobState>,
    /// Only jobs of this tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// How many at most
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: u32,
    /// Only jobs before this one: where another listing ended
    #[arg(long, value_name = "ID")]
    before: Option<JobId>,
}

fn state(text: &str) -> Result<JobState, String> {
    JobState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| {
            let names: Vec<_> = JobState::ALL.iter().map(|state| state.as_str()).collect();
            format!("expected one of {}", names.join(", "))
        })
}

pub(crate) async fn jobs(args: JobsArgs, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    let client = args.socket.client().await?;
    let filter = JobFilter {
        state: args.state,
        tenant: args.tenant,
    };
    let listing = listing(&client, &filter, args.limit, args.before).await?;
    match screen.form() {
        Form::Json => screen.json(&listing)?,
        Form::Text => {
            for line in table(&listing.jobs).lines(screen.colours()) {
                screen.line(&line)?;
            }
            if let Some(next) = listing.next {
                complain(&format!("there are more: go on with --before {next}"));
            }
        }
    }
    Ok(0)
}

/// The jobs that pass the filter, at most so many, from `before` on.
pub(crate) async fn listing(
    client: &Client,
    filter: &JobFilter,
    limit: u32,
    before: Option<JobId>,
) -> anyhow::Result<JobPage> {
    let mut listing = JobPage {
        jobs: Vec::new(),
        next: before,
    };
    loop {
        let missing = limit.saturating_sub(u32::try_from(listing.jobs.len()).unwrap_or(u32::MAX));
        if missing == 0 {
            return Ok(listing);
        }
        let page = client.jobs(filter, missing.min(PAGE), listing.next).await?;
        let is_empty = page.jobs.is_empty();
        listing.jobs.extend(page.jobs);
        listing.next = page.next;
        // A page without jobs ends it even if it names a next one: the daemon is not trusted to let this end.
        if listing.next.is_none() || is_empty {
            return Ok(listing);
        }
    }
}

fn table(jobs: &[JobSummary]) -> Table {
    let mut table = Table::new(["ID", "STATE", "QUEUED", "TENANT", "", "COMMAND"]);
    for job in jobs {
        let state = match outcome::tone(job.state) {
            Some(tone) => Cell::toned(job.state.as_str(), tone),
            None => job.state.as_str().into(),
        };
        let class = match job.priority {
            Priority::High => Cell::toned("high", Tone::Attention),
            Priority::Normal => "".into(),
            Priority::Low => Cell::toned("low", Tone::Quiet),
        };
        table.row([
            job.id.to_string().into(),
            state,
            job.queued_at.to_string().into(),
            Cell::cut(&job.tenant, 20),
            class,
            Cell::cut(&job.command, COMMAND_WIDTH),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::screen::Colours;
    use super::*;

    #[test]
    fn a_hostile_command_stays_in_its_cell() {
        let job: JobSummary = serde_json::from_str(
            r#"{"id": "000000000000a", "state": "running", "command": "sh -c \u001b[2J\nrm", "tenant": "a\u009bb",
                "priority": "low", "attempts": 1, "queued_at": "2026-11-24T01:51:47.042Z", "started_at": null,
                "ended_at": null}"#,
        )
        .unwrap();
        insta::assert_snapshot!(table(&[job]).lines(Colours::Off).join("\n"));
    }

    #[test]
    fn a_state_is_named_as_json_names_it() {
        assert_eq!(state("timed_out"), Ok(JobState::TimedOut));
        assert!(state("done").unwrap_err().contains("succeeded"));
    }
}
