//! `wpool quarantine`: what to do with jobs that cost too many workers.

use clap::{Args, Subcommand};
use serde::Serialize;
use wpool::client::{ClientError, JobFilter};
use wpool_protocol::id::JobId;
use wpool_protocol::outcome::JobState;
use wpool_protocol::status::{JobPage, JobSummary};

use super::screen::{Form, Screen, complain};
use super::table::{Cell, Table};
use super::{FAILED, SocketArgs, jobs};

/// List, release or discard jobs that cost too many workers
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  wpool quarantine list\n  wpool quarantine release 1p5sv3d7800ag\n  wpool quarantine discard 1p5sv3d7800ag"
)]
pub(crate) enum QuarantineCommand {
    /// Show what is set aside, youngest first
    List(ListArgs),
    /// Try jobs again: each as a new job, whose id is printed
    Release(ReleaseArgs),
    /// Let go of jobs, and of how they ended
    Discard(DiscardArgs),
}

/// Show what is set aside, youngest first
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wpool quarantine list\n  wpool quarantine list --tenant acme --json"
)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Only jobs of this tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// How many at most
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: u32,
}

/// Try jobs again: each as a new job, whose id is printed
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wpool quarantine release 1p5sv3d7800ag\n  wpool quarantine list --json | jq -r '.jobs[].id' | xargs wpool quarantine release"
)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// The jobs
    #[arg(required = true, value_name = "ID")]
    ids: Vec<JobId>,
}

/// Let go of jobs, and of how they ended
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wpool quarantine discard 1p5sv3d7800ag")]
pub(crate) struct DiscardArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// The jobs
    #[arg(required = true, value_name = "ID")]
    ids: Vec<JobId>,
}

/// What became of one of them.
#[derive(Serialize)]
struct Done {
    id: JobId,
    #[serde(skip_serializing_if = "Option::is_none")]
    released_as: Option<JobId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(crate) async fn quarantine(
    command: QuarantineCommand,
    screen: &mut Screen<'_>,
) -> anyhow::Result<u8> {
    match command {
        QuarantineCommand::List(args) => list(args, screen).await,
        QuarantineCommand::Release(ReleaseArgs { socket, ids }) => {
            let client = socket.client().await?;
            let mut code = 0;
            for id in ids {
                let released = client.release(id).await.map(|new| Some(new.id));
                code = tell("release", id, released, screen)?.max(code);
            }
            Ok(code)
        }
        QuarantineCommand::Discard(DiscardArgs { socket, ids }) => {
            let client = socket.client().await?;
            let mut code = 0;
            for id in ids {
                let discarded = client.discard(id).await.map(|()| None);
                code = tell("discard", id, discarded, screen)?.max(code);
            }
            Ok(code)
        }
    }
}

/// Says what became of one job; the code for it. An error if the daemon has gone.
fn tell(
    doing: &str,
    id: JobId,
    became: Result<Option<JobId>, ClientError>,
    screen: &mut Screen<'_>,
) -> anyhow::Result<u8> {
    let (released_as, error) = match became {
        Ok(released_as) => (released_as, None),
        Err(ClientError::Socket(gone)) => return Err(gone.into()),
        Err(error) => (None, Some(error.to_string())),
    };
    let code = if error.is_some() { FAILED } else { 0 };
    match (screen.form(), &error, released_as) {
        (Form::Json, ..) => screen.json_line(&Done {
            id,
            released_as,
            error,
        })?,
        (Form::Text, Some(error), _) => complain(&format!("failed to {doing} {id}: {error}")),
        (Form::Text, None, Some(new)) => screen.line(&new.to_string())?,
        (Form::Text, None, None) => {}
    }
    Ok(code)
}

async fn list(args: ListArgs, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    let client = args.socket.client().await?;
    let filter = JobFilter {
        state: Some(JobState::Quarantined),
        tenant: args.tenant,
    };
    let listing: JobPage = jobs::listing(&client, &filter, args.limit, None).await?;
    match screen.form() {
        Form::Json => screen.json(&listing)?,
        Form::Text => {
            for line in table(&listing.jobs).lines(screen.colours()) {
                screen.line(&line)?;
            }
        }
    }
    Ok(0)
}

fn table(jobs: &[JobSummary]) -> Table {
    let mut table = Table::new(["ID", "ENDED", "TENANT", "RELEASED AS", "COMMAND", "WHY"]);
    for job in jobs {
        let ended = job.ended_at.map(|ended| ended.to_string());
        let released = job.released_as.map(|new| new.to_string());
        table.row([
            job.id.to_string().into(),
            ended.unwrap_or_default().into(),
            Cell::cut(&job.tenant, 20),
            released.unwrap_or_default().into(),
            Cell::cut(&job.command, 40),
            Cell::cut(job.cause.as_deref().unwrap_or_default(), 60),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::screen::Colours;
    use super::*;

    #[test]
    fn a_hostile_job_stays_in_its_cells() {
        let job: JobSummary = serde_json::from_str(
            r#"{"id": "000000000000a", "state": "quarantined", "command": "sh -c \u001b[2J\nrm", "tenant": "a\u009bb",
                "priority": "low", "attempts": 3, "queued_at": "2026-11-24T01:51:47.042Z", "started_at": null,
                "ended_at": "2026-11-24T01:51:48.042Z", "cause": "3 workers were lost\r\nover it",
                "released_as": "000000000000b"}"#,
        )
        .unwrap();
        insta::assert_snapshot!(table(&[job]).lines(Colours::Off).join("\n"));
    }
}
