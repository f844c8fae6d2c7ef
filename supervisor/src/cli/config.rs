//! `wpool config`: what the config says, and whether it can be understood.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::screen::Screen;

/// Check or show the config
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  wpool config check /etc/wpool/wpool.toml\n  wpool config show"
)]
pub(crate) enum ConfigCommand {
    /// Say whether the config can be understood, and where not
    Check(ConfigArgs),
    /// Show every key with the value that holds
    Show(ConfigArgs),
}

/// Which config.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wpool config check /etc/wpool/wpool.toml\n  wpool config show"
)]
pub(crate) struct ConfigArgs {
    /// The config [default: the one that `wpool serve` reads]
    file: Option<PathBuf>,
}

pub(crate) fn config(command: ConfigCommand, _screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    match command {
        ConfigCommand::Check(args) | ConfigCommand::Show(args) => {
            drop(args.file);
            anyhow::bail!("this build of wpool reads no config yet")
        }
    }
}
