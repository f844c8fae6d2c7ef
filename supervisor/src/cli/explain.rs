//! `wpool explain`: why a job, a slot or the pool is as it is.

use anyhow::Context as _;
use clap::Args;
use wpool_protocol::explanation::{JobExplanation, PoolExplanation};
use wpool_protocol::id::{JobId, SlotId};

use super::screen::{Form, Screen};
use super::{SocketArgs, escape};

/// Say why a job is where it is; without one, why the pool and its slots are as they are
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wpool explain 1p5sv3d7800ag\n  wpool explain --slot 3\n  wpool explain"
)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Only this slot
    #[arg(long, value_name = "NUMBER", conflicts_with = "id")]
    slot: Option<u16>,
    /// The job
    id: Option<JobId>,
}

pub(crate) async fn explain(args: ExplainArgs, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    let client = args.socket.client().await?;
    if let Some(id) = args.id {
        let why = client.explain(id).await?;
        match screen.form() {
            Form::Json => screen.json(&why)?,
            Form::Text => show_job(&why, screen)?,
        }
        return Ok(0);
    }
    let mut why = client.explain_pool().await?;
    if let Some(number) = args.slot {
        let there = why.slots.len();
        why.slots.retain(|slot| slot.slot == SlotId(number));
        let slot = why.slots.first();
        let slot = slot.with_context(|| format!("there is no slot {number}: there are {there}"))?;
        match screen.form() {
            Form::Json => screen.json(slot)?,
            Form::Text => screen.line(&escape::line(&format!("{}: {}", slot.state, slot.text)))?,
        }
        return Ok(0);
    }
    match screen.form() {
        Form::Json => screen.json(&why)?,
        Form::Text => show_pool(&why, screen)?,
    }
    Ok(0)
}

fn show_job(why: &JobExplanation, screen: &mut Screen<'_>) -> anyhow::Result<()> {
    screen.line(&escape::line(&format!("{}: {}", why.state, why.text)))?;
    for attempt in &why.attempts {
        screen.line(&format!("  {}", escape::line(attempt)))?;
    }
    let waits = why.waits.as_ref();
    let ahead = waits.map_or(&[][..], |waits| &waits.first_ahead);
    if !ahead.is_empty() {
        let ids: Vec<_> = ahead.iter().map(ToString::to_string).collect();
        screen.line(&format!("  first before it: {}", ids.join(" ")))?;
    }
    Ok(())
}

fn show_pool(why: &PoolExplanation, screen: &mut Screen<'_>) -> anyhow::Result<()> {
    screen.line(&escape::line(&format!("{}: {}", why.state, why.text)))?;
    for slot in &why.slots {
        let text = format!("slot {}, {}: {}", slot.slot, slot.state, slot.text);
        screen.line(&format!("  {}", escape::line(&text)))?;
    }
    Ok(())
}
