//! `wpool doctor`: which walls stand on this machine, why one does not, and what to do.

use clap::Args;
use serde::Serialize;
use wpool::birth::ids::Ids;
use wpool::diagnosis::remedy::Remedy;
use wpool::diagnosis::{self, Certainty, Facts, Finding};
use wpool::foreground::{self, RunError};
use wpool_protocol::outcome::{Identity, IsolationLevel};
use wpool_protocol::wire::{LayerReport, LayerState, ProfileSetup, Ready};
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
    /// What takes layers away, or may.
    findings: Vec<Finding>,
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

impl Layer {
    fn stands(&self) -> bool {
        self.state == "active"
    }

    /// What a worker cannot know: what the daemon's own cgroup is, and why something is missing on this host.
    fn explain(&mut self, facts: &Facts, findings: &[Finding]) {
        if self.name == "cgroup_limits" && facts.cgroup.is_none() {
            self.state = "active";
            self.detail = String::from("for wpool serve; wpool run samples memory and CPU");
            self.remedy.clear();
        }
        let finding = findings
            .iter()
            .find(|finding| finding.layer == self.name && finding.certainty == Certainty::Certain);
        if let Some(finding) = finding.filter(|_| !self.stands()) {
            self.detail.clone_from(&finding.reason);
            self.remedy = finding.remedy.to_string();
        }
    }
}

impl Diagnosis {
    fn new(
        examined: Result<Ready, RunError>,
        facts: &Facts,
        mut findings: Vec<Finding>,
        host: Vec<Fact>,
    ) -> Self {
        let mut diagnosis = Self {
            version: env!("CARGO_PKG_VERSION"),
            works: false,
            problem: None,
            level: IsolationLevel::Unknown,
            identity: Identity::Shared,
            layers: Vec::new(),
            findings: Vec::new(),
            host,
        };
        match examined {
            Ok(ready) => {
                diagnosis.works = true;
                diagnosis.level = ready.level;
                diagnosis.identity = ready.identity;
                diagnosis.layers = ready.layers.into_iter().map(Layer::from).collect();
                for layer in &mut diagnosis.layers {
                    layer.explain(facts, &findings);
                }
                // What stands is believed before any rule.
                let standing = |name: &str| {
                    diagnosis
                        .layers
                        .iter()
                        .any(|layer| layer.name == name && layer.stands())
                };
                findings
                    .retain(|finding| finding.layer != "namespaces" && !standing(&finding.layer));
            }
            Err(RunError::Refused {
                layer,
                reason,
                remedy,
            }) => {
                diagnosis.problem = Some(format!("the sandbox cannot be built without {layer}"));
                diagnosis.layers.push(Layer {
                    name: layer,
                    state: "missing",
                    detail: reason,
                    remedy,
                });
            }
            Err(error) => {
                diagnosis.problem = Some(format!("{:#}", anyhow::Error::new(error)));
            }
        }
        diagnosis.findings = findings;
        diagnosis
    }

    fn write(&self, screen: &mut Screen<'_>) -> anyhow::Result<()> {
        let colours = screen.colours();
        if !self.layers.is_empty() {
            let mut table = Table::new(["LAYER", "STATE", "DETAIL"]);
            for layer in &self.layers {
                let tone = if layer.stands() {
                    Tone::Good
                } else {
                    Tone::Bad
                };
                table.row([
                    layer.name.clone().into(),
                    Cell::toned(layer.state, tone),
                    layer.detail.clone().into(),
                ]);
            }
            for line in table.lines(colours) {
                screen.line(&line)?;
            }
            screen.line("")?;
        }
        let mut table = Table::new(["HOST", ""]);
        for fact in &self.host {
            table.row([fact.name.into(), fact.value.clone().into()]);
        }
        for line in table.lines(colours) {
            screen.line(&line)?;
        }
        screen.line("")?;
        self.write_remedies(screen)?;
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

    /// What is missing, and below it what to do: on lines of their own, so that they can be copied whole.
    fn write_remedies(&self, screen: &mut Screen<'_>) -> anyhow::Result<()> {
        let told = |layer: &&Layer| {
            let said = |finding: &Finding| finding.remedy.to_string() == layer.remedy;
            !layer.remedy.is_empty() && !self.findings.iter().any(said)
        };
        for layer in self.layers.iter().filter(told) {
            let reason = format!("{}: {}", layer.name, layer.detail);
            write_remedy(screen, &reason, &layer.remedy)?;
        }
        for finding in &self.findings {
            let Remedy { place, paste } = &finding.remedy;
            write_remedy(screen, &finding.to_string(), &format!("{place}:\n{paste}"))?;
        }
        Ok(())
    }
}

fn write_remedy(screen: &mut Screen<'_>, reason: &str, remedy: &str) -> anyhow::Result<()> {
    let reason = screen
        .colours()
        .paint(Tone::Attention, &escape::message(reason));
    screen.line(&reason)?;
    for line in remedy.lines() {
        screen.line(&format!("    {}", escape::message(line)))?;
    }
    screen.line("")
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
    let facts = Facts::gather();
    let host = host::facts(&facts, &ids);
    let mut findings = diagnosis::findings(&facts);
    let refused = ids.as_ref().map_or_else(Some, Ids::refused);
    findings.extend(refused.and_then(diagnosis::of_ids));
    let examined = ids
        .map_err(RunError::from)
        .and_then(|ids| foreground::examine(config.isolation, ids));
    let diagnosis = Diagnosis::new(examined, &facts, findings, host);
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
        let host = vec![Fact {
            name: "kernel",
            value: "6.18.0".into(),
        }];
        let finding = |layer: &str| Finding {
            layer: layer.to_owned(),
            certainty: Certainty::Possible,
            reason: "it is old\x1b[2J".to_owned(),
            remedy: Remedy {
                place: "boot".into(),
                paste: "another".into(),
            },
            signs: Vec::new(),
        };
        // What stands is believed before any rule.
        let findings = vec![finding("user"), finding("kernel")];
        let mut shown = Vec::new();
        Diagnosis::new(Ok(ready), &Facts::gather(), findings, host)
            .write(&mut Screen::into(&mut shown, Form::Text))
            .unwrap();
        insta::assert_snapshot!(String::from_utf8(shown).unwrap());
    }
}
