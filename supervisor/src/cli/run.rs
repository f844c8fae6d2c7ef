//! `wpool run`: one command in a sandbox, without a daemon.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use wpool::foreground::{self, ForegroundRun, Mode, RunEnd};
use wpool_protocol::outcome::{JobState, Outcome};

use super::config::SourceArgs;
use super::job_args::{JobArgs, ReadOnlySpec};
use super::screen::{Form, Screen, complain};
use super::{INTERRUPTED, outcome, output_files};

/// Run a command in a sandbox, without a daemon, and exit as it did
///
/// Its standard streams are those of wpool, byte for byte; with --json they come with the outcome instead. It sees
/// read-only system directories and an empty /box, its working directory; no network, no home, no other process.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wpool run -- python3 -c 'print(6*7)'
  wpool run --timeout 5s --memory 256M --in main.py -- python3 main.py
  wpool run --in project:. --out report.xml -- python3 -m unittest
  wpool run --ro /opt/venv -- /opt/venv/bin/python -c 'import numpy'
  wpool run --json -- sh -c 'echo out; exit 3'

In a loop that reads lines, give it --stdin /dev/null, or it reads them.")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    config: SourceArgs,
    /// Show the job a path of this machine, read-only, in the same place or at DEST
    #[arg(long = "ro", value_name = "PATH[:DEST]", value_parser = OsStringValueParser::new().try_map(|text: OsString| ReadOnlySpec::parse(text)))]
    read_only: Vec<ReadOnlySpec>,
    #[command(flatten)]
    job: JobArgs,
}

impl RunArgs {
    fn prepare(&self, form: Form) -> anyhow::Result<ForegroundRun> {
        let mut request = self.job.request()?;
        let mode = match form {
            Form::Json => {
                request.stdin = self.job.read_stdin()?;
                Mode::Captured
            }
            Form::Text => Mode::Live {
                stdin: match self.job.stdin.as_deref() {
                    None => None,
                    Some(path) if path == Path::new("-") => None,
                    Some(path) => Some(
                        File::open(path)
                            .with_context(|| format!("failed to read {}", path.display()))?,
                    ),
                },
            },
        };
        request.validate()?;
        let read_only = self
            .read_only
            .iter()
            .map(ReadOnlySpec::resolve)
            .collect::<anyhow::Result<_>>()?;
        Ok(ForegroundRun {
            request,
            read_only,
            config: self.config.load()?,
            mode,
        })
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "every command takes its arguments by value"
)]
pub(crate) fn run(args: RunArgs, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    let run = args.prepare(screen.form())?;
    let program = args.job.command.first().cloned().unwrap_or_default();
    match foreground::run(run)? {
        RunEnd::Ended(outcome) => show(&args, &outcome, screen),
        RunEnd::NotFound => {
            complain(&format!(
                "{program}: there is no such program in the sandbox: hand it in with --in, or show it with --ro"
            ));
            Ok(127)
        }
        RunEnd::Lacking(lacks) => {
            complain(&format!(
                "{program}: it needs {lacks}, which is not in the sandbox: show that too, with --ro"
            ));
            Ok(127)
        }
        RunEnd::NotExecutable(error) => {
            complain(&format!(
                "{program}: cannot be executed: {error}: is it a program of this machine, with the mode for it?"
            ));
            Ok(126)
        }
        RunEnd::Abandoned => Ok(INTERRUPTED),
    }
}

fn show(args: &RunArgs, outcome: &Outcome, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    for problem in output_files::write(&args.job.outputs, &outcome.files, screen)? {
        complain(&problem);
    }
    match screen.form() {
        Form::Json => screen.json(outcome)?,
        Form::Text => {
            if outcome.state != JobState::Cancelled
                && let Some(remark) = outcome::remark(outcome)
            {
                complain(&remark);
            }
        }
    }
    Ok(match outcome.state {
        JobState::Cancelled => INTERRUPTED,
        _ => outcome.process_exit_code(),
    })
}
