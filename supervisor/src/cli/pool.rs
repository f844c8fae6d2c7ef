//! `wpool pool`: what an operator tells the pool.

use clap::{Args, Subcommand};
use wpool::client::PoolOrder;

use super::SocketArgs;
use super::screen::{Form, Screen};

/// Pause, resume or drain the pool
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  wpool pool pause\n  wpool pool drain --queued\n  wpool pool resume"
)]
pub(crate) enum PoolCommand {
    /// Accept jobs and start none
    Pause(PauseArgs),
    /// Start jobs again, and accept them again
    Resume(ResumeArgs),
    /// Refuse jobs, finish what runs, leave the queue, stay up
    Drain(DrainArgs),
}

/// Accept jobs and start none
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wpool pool pause")]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    socket: SocketArgs,
}

/// Start jobs again, and accept them again
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wpool pool resume")]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    socket: SocketArgs,
}

/// Refuse jobs, finish what runs, leave the queue, stay up
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wpool pool drain\n  wpool pool drain --queued")]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Finish what waits in the queue too
    #[arg(long)]
    queued: bool,
}

pub(crate) async fn pool(command: PoolCommand, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    let (socket, order) = match command {
        PoolCommand::Pause(args) => (args.socket, PoolOrder::Pause),
        PoolCommand::Resume(args) => (args.socket, PoolOrder::Resume),
        PoolCommand::Drain(args) if args.queued => (args.socket, PoolOrder::DrainQueued),
        PoolCommand::Drain(args) => (args.socket, PoolOrder::Drain),
    };
    let client = socket.client().await?;
    client.order(order).await?;
    let status = client.status().await?;
    match screen.form() {
        Form::Json => screen.json(&serde_json::json!({"state": status.state}))?,
        Form::Text => screen.line(&format!("the pool is {}", status.state))?,
    }
    Ok(0)
}
