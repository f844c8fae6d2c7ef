//! `wpool doctor`: which walls stand on this machine, why one does not, and what to do.

use clap::Args;
use serde::Serialize;
use wpool::birth::ids::Ids;
use wpool::foreground::{self, RunError};
use wpool_protocol::outcome::{Identity, IsolationLevel};
use wpool_protocol::wire::{LayerReport, LayerState, ProfileSetup, Ready, Refused};
use wpool_worker::ground::Ground;
use wpool_worker::plan;
use wpool_worker::plan::host::Layout;
use wpool_worker::seccomp::Accounting;

use super::config::SourceArgs;
use super::host::{self, Fact};
use super::screen::{Form, Screen, Tone};
use super::table::{Cell, Table};
use super::{FAILED, escape};

/// Show which walls of the sandbox stand on this machine, why one does not, and what to do
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wpool doctor\n  wpool doctor --plan\n  wpool doctor --json | jq '.layers[] | select(.state == \"missing\")'\n\nExits with 0 if jobs can run here, else with 125."
)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    config: SourceArgs,
    /// Print the steps by which the sandbox is built
    #[arg(long)]
    plan: bool,
}

/// The diagnosis, as JSON shows it.
#[derive(Debug, Serialize)]
struct Diagnosis {
    version: &'static str,
    /// Whether jobs can run here.
    works: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    level: IsolationLevel,
    identity: Identity,
    layers: Vec<Layer>,
    host: Vec<Fact>,
}

#[derive(Debug, Serialize)]
struct Layer {
    name: String,
    state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
}

impl From<LayerReport> for Layer {
    fn from(report: LayerReport) -> Self {
        let (state, detail, remedy) = match report.state {
            LayerState::Active(detail) => ("active", detail, String::new()),
            LayerState::Missing { reason, remedy } => ("missing", reason, remedy),
        };
        Self {
            name: report.name,
            state,
            detail,
            remedy,
        }
    }
}

impl Diagnosis {
    fn new(examined: Result<Result<Ready, Refused>, RunError>, host: Vec<Fact>) -> Self {
        let mut diagnosis = Self {
            version: env!("CARGO_PKG_VERSION"),
            works: false,
            problem: None,
            level: IsolationLevel::Unknown,
            identity: Identity::Shared,
            layers: Vec::new(),
            host,
        };
        match examined {
            Ok(Ok(ready)) => {
                diagnosis.works = true;
                diagnosis.level = ready.level;
                diagnosis.identity = ready.identity;
                diagnosis.layers = ready.layers.into_iter().map(Layer::from).collect();
            }
            Ok(Err(refused)) => {
                diagnosis.problem = Some(format!(
                    "the sandbox cannot be built without {}",
                    refused.layer
                ));
                diagnosis.layers.push(Layer {
                    name: refused.layer,
                    state: "missing",
                    detail: refused.reason,
                    remedy: refused.remedy,
                });
            }
            Err(error) => {
                diagnosis.problem = Some(format!("{:#}", anyhow::Error::new(error)));
            }
        }
        diagnosis
    }

    fn write(&self, screen: &mut Screen<'_>) -> anyhow::Result<()> {
        let colours = screen.colours();
        if !self.layers.is_empty() {
            let mut table = Table::new(["LAYER", "STATE", "DETAIL", "WHAT TO DO"]);
            for layer in &self.layers {
                let tone = if layer.state == "active" {
                    Tone::Good
                } else {
                    Tone::Bad
                };
                table.row([
                    layer.name.clone().into(),
                    Cell::toned(layer.state, tone),
                    layer.detail.clone().into(),
                    layer.remedy.clone().into(),
                ]);
            }
            for line in table.lines(colours) {
                screen.line(&line)?;
            }
            screen.line("")?;
        }
        let mut table = Table::new(["HOST", "", "WHAT TO DO"]);
        for fact in &self.host {
            let value = match fact.remedy {
                None => fact.value.clone().into(),
                Some(_) => Cell::toned(fact.value.clone(), Tone::Attention),
            };
            let remedy = fact.remedy.as_deref().unwrap_or_default();
            table.row([fact.name.into(), value, remedy.to_owned().into()]);
        }
        for line in table.lines(colours) {
            screen.line(&line)?;
        }
        screen.line("")?;
        let verdict = match (&self.problem, self.level) {
            (Some(problem), _) => {
                let problem = escape::message(problem).into_owned();
                colours.paint(Tone::Bad, &format!("no job can run here: {problem}"))
            }
            (None, IsolationLevel::Full) => {
                colours.paint(Tone::Good, "jobs run here, with every security layer")
            }
            (None, IsolationLevel::Reduced | IsolationLevel::Unknown) => {
                colours.paint(Tone::Attention, "jobs run here, without some layers")
            }
        };
        screen.line(&verdict)
    }
}

/// By which steps a job's sandbox is built here.
#[derive(Debug, Serialize)]
struct Plan {
    /// Once for a worker.
    worker: Vec<String>,
    /// For every job, by its init.
    job: Vec<String>,
    /// For every job, by the process that becomes it.
    lockdown: Vec<String>,
}

impl Plan {
    fn of_this_host() -> Self {
        let whole = Ground::whole();
        let layout = Layout::look();
        let default = ProfileSetup {
            name: "default".to_owned(),
            mounts: Vec::new(),
        };
        let texts = |steps: Vec<plan::Step>| steps.iter().map(ToString::to_string).collect();
        Self {
            // As `wpool run` builds it.
            worker: texts(plan::slot::plan(
                &layout,
                &[default],
                Accounting::Sampling,
                &whole,
            )),
            job: texts(plan::job::plan(&layout, &plan::slot::template(0), &whole)),
            lockdown: plan::LOCKDOWN.iter().map(ToString::to_string).collect(),
        }
    }

    fn write(&self, screen: &mut Screen<'_>) -> anyhow::Result<()> {
        if screen.form() == Form::Json {
            return screen.json(self);
        }
        for (heading, steps) in [
            (
                "once, by the worker, in namespaces of its own",
                &self.worker,
            ),
            ("for every job, by its init, in further ones", &self.job),
            ("by the process that becomes the job", &self.lockdown),
        ] {
            screen.line(&screen.colours().paint(Tone::Heading, heading))?;
            for (n, step) in (1..).zip(steps) {
                screen.line(&format!("{n:>4}  {}", escape::line(step)))?;
            }
        }
        Ok(())
    }
}

pub(crate) fn doctor(args: &DoctorArgs, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    if args.plan {
        return Plan::of_this_host().write(screen).map(|()| 0);
    }
    let config = args.config.load()?;
    let ids = Ids::claim(config.identity.into());
    let facts = host::facts(&ids);
    let examined = ids
        .map_err(RunError::from)
        .and_then(|ids| foreground::examine(config.isolation, ids));
    let diagnosis = Diagnosis::new(examined, facts);
    match screen.form() {
        Form::Json => screen.json(&diagnosis)?,
        Form::Text => diagnosis.write(screen)?,
    }
    Ok(if diagnosis.works { 0 } else { FAILED })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_is_shown_with_what_to_do_about_it() {
        let layer = |name: &str, state| LayerReport {
            name: name.to_owned(),
            state,
        };
        let ready = Ready {
            level: IsolationLevel::Full,
            identity: Identity::Shared,
            layers: vec![
                layer("user", LayerState::Active(String::new())),
                layer("landlock", LayerState::Active("ABI 7".into())),
                layer(
                    "cgroup",
                    LayerState::Missing {
                        reason: "no controller is delegated\x1b[2J".into(),
                        remedy: "start wpool as a systemd service with Delegate=yes".into(),
                    },
                ),
            ],
        };
        let facts = vec![Fact {
            name: "kernel",
            value: "6.18.0".into(),
            remedy: None,
        }];
        let mut shown = Vec::new();
        Diagnosis::new(Ok(Ok(ready)), facts)
            .write(&mut Screen::into(&mut shown, Form::Text))
            .unwrap();
        insta::assert_snapshot!(String::from_utf8(shown).unwrap());
    }
}
