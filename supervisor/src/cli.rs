//! The command line: what people type, and what they see.
//!
//! # Invariants
//!
//! - An error is one line on standard error that says what to do; wpool's own failure exits with [`FAILED`].
//! - Every command has `--json`.
//! - What jobs, clients and daemons wrote reaches the terminal only through [`escape`]; the one exception is a
//!   job's own output on the stream that the user asked it for.
//!
//! Not here: the worker (`wpool worker`, which no person types) is taken off in `main` before anything is parsed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use wpool::client::Client;

mod batch;
mod cancel;
mod completions;
mod config;
mod doctor;
mod escape;
mod explain;
mod host;
mod input_files;
mod job_args;
mod jobs;
mod logs;
mod outcome;
mod output_files;
mod pool;
mod quarantine;
mod result;
mod run;
mod runtime;
mod screen;
mod serve;
mod status;
mod submit;
mod table;

use screen::{Form, OutputClosed, Screen, complain};

/// What wpool exits with when it failed itself, or when a job never ran to its end.
pub(crate) const FAILED: u8 = 125;

/// What wpool exits with when somebody interrupted it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Runs untrusted tool code in sandboxed processes on this machine.
///
/// `wpool run` runs one command in a sandbox and needs nothing else. `wpool serve` keeps a pool of warm sandboxed
/// workers and a queue; the other commands speak to it.
#[derive(Debug, Parser)]
#[command(
    name = "wpool",
    version,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Exit codes: the job's own; 124 its time was over; 137 another limit; 126 and 127 its program cannot \
                  be executed or is not there; 128+n signal n; 125 wpool failed; 130 interrupted."
)]
pub(crate) struct Cli {
    /// Answer in JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Serve(serve::ServeArgs),
    Submit(submit::SubmitArgs),
    Result(result::ResultArgs),
    Logs(logs::LogsArgs),
    Cancel(cancel::CancelArgs),
    Jobs(jobs::JobsArgs),
    Status(status::StatusArgs),
    Explain(explain::ExplainArgs),
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    Doctor(doctor::DoctorArgs),
    #[command(subcommand)]
    Config(config::ConfigCommand),
    Completions(completions::CompletionsArgs),
}

/// Which daemon to speak to.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SocketArgs {
    /// The daemon's control socket [default: the user's own, then /run/wpool/control.sock]
    #[arg(
        long,
        value_name = "PATH",
        env = "WPOOL_SOCKET",
        hide_env_values = true
    )]
    socket: Option<PathBuf>,
}

impl SocketArgs {
    /// A client of that daemon.
    pub(crate) async fn client(self) -> anyhow::Result<Client> {
        Ok(Client::find(self.socket).await?)
    }
}

/// Parses the arguments, runs the command and says what went wrong.
pub(crate) fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return misused(&error, &named_command(&arguments)),
    };
    if let Err(error) = survive_file_limit() {
        complain(&format!("failed to see to SIGXFSZ: {error}"));
        return ExitCode::from(FAILED);
    }
    let form = if cli.json { Form::Json } else { Form::Text };
    let mut screen = Screen::stdout(form);
    let ended = dispatch(cli.command, &mut screen).and_then(|code| {
        screen.flush()?;
        Ok(code)
    });
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.is::<OutputClosed>() => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Lets a write past somebody's `ulimit -f` fail, with an error to tell, instead of ending this process: a handler, not
/// `SIG_IGN`, which workers and jobs would inherit.
fn survive_file_limit() -> std::io::Result<()> {
    let heard = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, heard).map(drop)
}

fn dispatch(command: Command, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    match command {
        Command::Run(args) => run::run(args, screen),
        Command::Serve(args) => serve::serve(args),
        Command::Submit(args) => runtime::block_on(submit::submit(args, screen)),
        Command::Result(args) => runtime::block_on(result::result(args, screen)),
        Command::Logs(args) => runtime::block_on(logs::logs(args, screen)),
        Command::Cancel(args) => runtime::block_on(cancel::cancel(args, screen)),
        Command::Jobs(args) => runtime::block_on(jobs::jobs(args, screen)),
        Command::Status(args) => runtime::block_on(status::status(args, screen)),
        Command::Explain(args) => runtime::block_on(explain::explain(args, screen)),
        Command::Pool(command) => runtime::block_on(pool::pool(command, screen)),
        Command::Quarantine(command) => runtime::block_on(quarantine::quarantine(command, screen)),
        Command::Doctor(args) => doctor::doctor(&args, screen),
        Command::Config(command) => config::config(command, screen),
        Command::Completions(args) => completions::completions(&args, &mut Cli::command(), screen),
    }
}

/// Shows help or the version, or says in one line what is wrong with the arguments.
fn misused(error: &clap::Error, command: &str) -> ExitCode {
    use clap::error::ErrorKind;

    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        // If nobody reads the help, nobody misses it.
        drop(error.print());
        return if error.exit_code() == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(FAILED)
        };
    }
    complain(&one_line(&error.to_string(), command));
    ExitCode::from(FAILED)
}

/// clap's report without its usage: what is wrong, then the first tip, then where help is.
fn one_line(report: &str, command: &str) -> String {
    let problem = ["\n\nUsage:", "\n\nFor more information"]
        .iter()
        .fold(report, |text, end| {
            text.split_once(end).map_or(text, |(before, _)| before)
        });
    let mut line = String::new();
    let mut tips = 0;
    for part in problem
        .lines()
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        tips += usize::from(part.starts_with("tip:"));
        if tips > 1 {
            break;
        }
        match line.chars().last() {
            None => {}
            Some(':') => line.push(' '),
            Some(_) => line.push_str("; "),
        }
        line.push_str(part.strip_prefix("error: ").unwrap_or(part));
    }
    format!("{line}: see `{command} --help`")
}

/// The command that the arguments name, as far as they name one.
fn named_command(arguments: &[OsString]) -> String {
    let mut command = Cli::command();
    let mut words = command.get_name().to_owned();
    for argument in arguments.iter().skip(1) {
        if argument.as_encoded_bytes().starts_with(b"-") {
            continue;
        }
        let Some(named) = command.find_subcommand(argument).cloned() else {
            break;
        };
        command = named;
        words.push(' ');
        words.push_str(command.get_name());
    }
    words
}

#[cfg(test)]
mod tests;
