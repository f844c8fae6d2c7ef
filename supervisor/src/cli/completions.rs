//! `wpool completions SHELL`: a script that completes wpool's arguments.

use clap::Args;
use clap_complete::Shell;

use super::screen::{Form, Screen};

/// Print a script that completes arguments in a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wpool completions bash > ~/.local/share/bash-completion/completions/wpool"
)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn completions(
    args: &CompletionsArgs,
    command: &mut clap::Command,
    screen: &mut Screen<'_>,
) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "wpool", &mut script);
    match screen.form() {
        Form::Text => screen.raw(&script)?,
        Form::Json => screen.json(&serde_json::json!({
            "shell": args.shell.to_string(),
            "script": String::from_utf8_lossy(&script),
        }))?,
    }
    Ok(0)
}
