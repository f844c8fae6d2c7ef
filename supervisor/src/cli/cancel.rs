//! `wpool cancel ID…`: asks for the end of jobs.

use clap::Args;
use serde::Serialize;
use std::time::Duration;

use wpool::client::{Client, ClientError, JobAnswer};
use wpool_protocol::id::JobId;

use super::screen::{Form, Screen, complain};
use super::{FAILED, SocketArgs};

/// End jobs, whether they wait or run
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wpool cancel 1p5sv3d7800ag\n  wpool jobs --state queued --json | jq -r '.jobs[].id' | xargs wpool cancel"
)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// The jobs
    #[arg(required = true, value_name = "ID")]
    ids: Vec<JobId>,
}

/// What became of one of them.
#[derive(Serialize)]
struct Cancelled {
    id: JobId,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(crate) async fn cancel(args: CancelArgs, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    let client = args.socket.client().await?;
    let mut code = 0;
    for id in args.ids {
        let error = match cancel_one(&client, id).await {
            Ok(()) => None,
            Err(ClientError::Socket(gone)) => return Err(gone.into()),
            Err(error) => Some(error.to_string()),
        };
        match (&error, screen.form()) {
            (_, Form::Json) => screen.json_line(&Cancelled {
                id,
                error: error.clone(),
            })?,
            (Some(error), Form::Text) => complain(&format!("failed to cancel {id}: {error}")),
            (None, Form::Text) => {}
        }
        if error.is_some() {
            code = FAILED;
        }
    }
    Ok(code)
}

/// Cancels a job, but forgets none: to the daemon, DELETE of a job that has ended means that.
async fn cancel_one(client: &Client, id: JobId) -> Result<(), ClientError> {
    match client.result(id, Duration::ZERO).await? {
        // Asking for the end of what has ended is no error.
        JobAnswer::Ended(_) => Ok(()),
        JobAnswer::Present(_) => client.cancel(id).await,
    }
}
