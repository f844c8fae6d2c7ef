//! `wpool config`: what the config says, and whether it can be used.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use wpool::config::{Config, ConfigError, Flags, Source, load};

use super::screen::{Form, Screen};
use super::{FAILED, escape};

/// Check or show the config
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  wpool config check /etc/wpool/wpool.toml\n  wpool config show"
)]
pub(crate) enum ConfigCommand {
    /// Say whether the config can be used on this machine, and where not
    Check(CheckArgs),
    /// Show every key with the value that holds: default, file, environment
    Show(ShowArgs),
}

/// Say whether the config can be used on this machine, and where not
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wpool config check\n  wpool config check wpool.toml")]
pub(crate) struct CheckArgs {
    /// The config [default: the one that `wpool serve` reads]
    #[arg(env = "WPOOL_CONFIG", hide_env_values = true)]
    file: Option<PathBuf>,
}

/// Show every key with the value that holds: default, file, environment
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wpool config show\n  wpool config show --json | jq .pool.workers"
)]
pub(crate) struct ShowArgs {
    /// The config [default: the one that `wpool serve` reads]
    #[arg(env = "WPOOL_CONFIG", hide_env_values = true)]
    file: Option<PathBuf>,
}

/// Which config a command works by.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SourceArgs {
    /// The config [default: /etc/wpool/wpool.toml and conf.d for root, else ~/.config/wpool/wpool.toml]
    #[arg(
        long,
        value_name = "FILE",
        env = "WPOOL_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
}

impl SourceArgs {
    /// Where it comes from.
    pub(crate) fn source(&self, flags: Flags) -> Source {
        Source {
            file: self.config.clone(),
            flags,
        }
    }

    /// The config that holds.
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        load(&self.source(Flags::default()))
    }
}

pub(crate) fn config(command: ConfigCommand, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    match command {
        ConfigCommand::Check(args) => check(args.file, screen),
        ConfigCommand::Show(args) => {
            let config = config_at(args.file)?;
            match screen.form() {
                Form::Json => screen.json(&config.to_raw())?,
                Form::Text => {
                    for line in config.to_toml().lines() {
                        // TOML writes what is hostile as JSON does.
                        screen.line(&escape::json(line))?;
                    }
                }
            }
            Ok(0)
        }
    }
}

fn check(file: Option<PathBuf>, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    let checked = config_at(file).and_then(|config| config.check_host());
    match (checked, screen.form()) {
        (Ok(()), Form::Text) => screen.line("the config can be used").map(|()| 0),
        (Ok(()), Form::Json) => screen.json(&serde_json::json!({"ok": true})).map(|()| 0),
        (Err(error), Form::Text) => Err(error.into()),
        (Err(error), Form::Json) => {
            // With its causes, as the text has them.
            let error = format!("{:#}", anyhow::Error::from(error));
            screen.json(&serde_json::json!({"ok": false, "error": error}))?;
            Ok(FAILED)
        }
    }
}

fn config_at(file: Option<PathBuf>) -> Result<Config, ConfigError> {
    SourceArgs { config: file }.load()
}
