//! `wpool serve`: the daemon, in the foreground.

use std::path::PathBuf;

use clap::Args;
use wpool::config::{Flags, WORKERS_MAX};
use wpool::serve::ServeOptions;

use super::config::SourceArgs;

/// Run the daemon: a pool of sandboxed workers, a queue and a control socket
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wpool serve\n  wpool serve --config wpool.toml --socket /tmp/mine/control.sock --workers 4\n\nSignals: SIGTERM or SIGINT finishes what runs and exits, a second SIGINT kills what runs, a third exits at once; SIGHUP reads the config again."
)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    config: SourceArgs,
    #[arg(
        long,
        value_name = "PATH",
        env = "WPOOL_SOCKET",
        hide_env_values = true,
        help = "Its control socket [default: $RUNTIME_DIRECTORY/control.sock, \
                then $XDG_RUNTIME_DIR/wpool/control.sock]"
    )]
    socket: Option<PathBuf>,
    /// Where it keeps what is to survive it
    #[arg(
        long,
        value_name = "DIR",
        env = "WPOOL_STATE_DIR",
        hide_env_values = true
    )]
    state_dir: Option<PathBuf>,
    /// Workers [default: one for each core it may use]
    #[arg(
        long,
        value_name = "COUNT",
        env = "WPOOL_WORKERS",
        hide_env_values = true,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(WORKERS_MAX))
    )]
    workers: Option<u16>,
}

pub(crate) fn serve(args: ServeArgs) -> anyhow::Result<u8> {
    let ServeArgs {
        config,
        socket,
        state_dir,
        workers,
    } = args;
    wpool::serve::serve(&ServeOptions {
        source: config.source(Flags { workers }),
        socket,
        state_dir,
    })
}
