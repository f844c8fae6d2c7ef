//! `wpool pool`: what an operator tells the pool.

use clap::{Args, Subcommand};
use wpool::client::PoolOrder;
use wpool::config::WORKERS_MAX;

use super::SocketArgs;
use super::screen::{Form, Screen};

/// Pause, resume, drain, resize, recycle or clear the pool
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
    /// Have so many workers; what runs in one that goes may end
    Resize(ResizeArgs),
    /// Replace every worker by a new one, each when it is idle and another stands in for it
    Recycle(RecycleArgs),
    /// End every job that waits, as cancelled; what runs goes on
    Clear(ClearArgs),
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

/// Have so many workers; what runs in one that goes may end
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wpool pool resize 8")]
pub(crate) struct ResizeArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Workers
    #[arg(value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=i64::from(WORKERS_MAX)))]
    workers: u16,
}

/// Replace every worker by a new one, each when it is idle and another stands in for it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wpool pool recycle")]
pub(crate) struct RecycleArgs {
    #[command(flatten)]
    socket: SocketArgs,
}

/// End every job that waits, as cancelled; what runs goes on
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wpool pool clear")]
pub(crate) struct ClearArgs {
    #[command(flatten)]
    socket: SocketArgs,
}

pub(crate) async fn pool(command: PoolCommand, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    let (socket, order) = match command {
        PoolCommand::Pause(args) => (args.socket, PoolOrder::Pause),
        PoolCommand::Resume(args) => (args.socket, PoolOrder::Resume),
        PoolCommand::Drain(args) if args.queued => (args.socket, PoolOrder::DrainQueued),
        PoolCommand::Drain(args) => (args.socket, PoolOrder::Drain),
        PoolCommand::Resize(args) => (args.socket, PoolOrder::Resize(args.workers)),
        PoolCommand::Recycle(args) => (args.socket, PoolOrder::Recycle),
        PoolCommand::Clear(args) => return clear(args, screen).await,
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

async fn clear(args: ClearArgs, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    let cleared = args.socket.client().await?.clear().await?;
    match screen.form() {
        Form::Json => screen.json(&serde_json::json!({"cleared": cleared}))?,
        Form::Text => screen.line(&format!("{cleared} jobs were cleared away"))?,
    }
    Ok(0)
}
