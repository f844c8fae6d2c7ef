//! `wpool result ID`: how a job ended.

use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use wpool::client::JobAnswer;
use wpool_protocol::id::JobId;

use super::output_files::{self, OutSpec};
use super::screen::{Form, Screen, complain};
use super::{FAILED, SocketArgs, outcome};

/// Show how a job ended; what it wrote is shown by `wpool logs`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wpool result --wait 1p5sv3d7800ag\n  wpool result 1p5sv3d7800ag --out report.json\n  wpool result 1p5sv3d7800ag --json | jq -r .stdout"
)]
pub(crate) struct ResultArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Wait until it has ended
    #[arg(long)]
    wait: bool,
    /// Write a file that the job brought out, or all that match a pattern; `-` as PATH is standard output
    #[arg(long = "out", value_name = "NAME[:PATH]", value_parser = OsStringValueParser::new().try_map(OutSpec::parse))]
    outputs: Vec<OutSpec>,
    /// The job
    id: JobId,
}

pub(crate) async fn result(args: ResultArgs, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    let client = args.socket.client().await?;
    let outcome = if args.wait {
        client.outcome(args.id).await?
    } else {
        match client.result(args.id, Duration::ZERO).await? {
            JobAnswer::Ended(outcome) => outcome,
            JobAnswer::Present(present) => {
                if screen.form() == Form::Json {
                    screen.json(&present)?;
                }
                complain(&format!(
                    "job {} is {}: wait for its end with --wait",
                    present.id, present.state
                ));
                return Ok(FAILED);
            }
        }
    };
    let problems = output_files::write(&args.outputs, &outcome.files, screen)?;
    for problem in &problems {
        complain(problem);
    }
    match screen.form() {
        Form::Json => screen.json(&*outcome)?,
        Form::Text if args.outputs.is_empty() => {
            for line in outcome::lines(&outcome, screen.colours()) {
                screen.line(&line)?;
            }
        }
        Form::Text => {}
    }
    Ok(if problems.is_empty() { 0 } else { FAILED })
}
