//! Why a host does not let a sandbox stand, and what to do: facts in, findings out.
//!
//! ```text
//!   /proc /sys /etc, calls ──▶ Facts ──▶ findings()             what is wrong here: `wpool doctor`
//!                                └─────▶ explain(a failure)     which of it is why: the line with which wpool refuses
//! ```
//!
//! The kernel says EPERM or ENOSPC and never why. What can be why is known, and can be looked at: a sysctl, a filter, a mask over
//! `/proc`. A finding names the layer that it takes away, and the failures that it accounts for; a failure is explained by those findings alone.
//!
//! # Invariants
//!
//! - [`Certainty::Certain`] is what the kernel's rules and the facts leave no doubt of; everything else is told as a possibility.
//! - Facts are gathered in one place, [`Facts::gather`], only where something is wrong or somebody asks; the rules see nothing else.
//!
//! Not here: what stands, which a worker says itself.

use std::fmt;

use serde::Serialize;
use wpool_protocol::wire::Refused;

use crate::birth::ids::NoIds;

pub mod facts;
mod failure;
pub mod remedy;
mod rules;

pub use facts::Facts;
pub use failure::{Course, Failure, Stage};
use remedy::Remedy;

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// It takes the layer away.
    Certain,
    /// It may.
    Possible,
}

/// Something about the host that takes a layer away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which layer.
    pub layer: String,
    /// How sure that is.
    pub certainty: Certainty,
    /// What it is.
    pub reason: String,
    /// What to do about it.
    pub remedy: Remedy,
    /// The failures that it accounts for.
    #[serde(skip)]
    pub signs: Vec<Sign>,
}

/// Failures by which something shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    /// When.
    pub stage: Stage,
    /// In which layers; any if there are none.
    pub layers: &'static [&'static str],
    /// With which answer of the kernel's; any if there are none.
    pub errnos: &'static [i32],
}

impl Finding {
    /// Something that is so.
    fn certain(layer: impl Into<String>, reason: impl Into<String>, remedy: Remedy) -> Self {
        Self {
            layer: layer.into(),
            certainty: Certainty::Certain,
            reason: reason.into(),
            remedy,
            signs: Vec::new(),
        }
    }

    /// Something that may be so.
    fn possible(layer: impl Into<String>, reason: impl Into<String>, remedy: Remedy) -> Self {
        Self {
            certainty: Certainty::Possible,
            ..Self::certain(layer, reason, remedy)
        }
    }

    /// The failures by which it shows.
    fn showing(mut self, signs: impl IntoIterator<Item = Sign>) -> Self {
        self.signs.extend(signs);
        self
    }

    fn accounts_for(&self, failure: &Failure) -> bool {
        self.signs.iter().any(|sign| sign.is_of(failure))
    }
}

impl Sign {
    /// A failure at this stage with one of these answers.
    const fn at(stage: Stage, errnos: &'static [i32]) -> Self {
        Self {
            stage,
            layers: &[],
            errnos,
        }
    }

    /// A layer of these that could not be built, with one of these answers.
    const fn building(layers: &'static [&'static str], errnos: &'static [i32]) -> Self {
        Self {
            stage: Stage::Build,
            layers,
            errnos,
        }
    }

    fn is_of(&self, failure: &Failure) -> bool {
        let layer = failure.layer.as_deref().unwrap_or_default();
        let is_layer = self.layers.is_empty() || self.layers.contains(&layer);
        let is_errno = match failure.errno {
            Some(errno) => self.errnos.is_empty() || self.errnos.contains(&errno),
            None => self.errnos.is_empty(),
        };
        self.stage == failure.stage && is_layer && is_errno
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let maybe = match self.certainty {
            Certainty::Certain => "",
            Certainty::Possible => "possibly, ",
        };
        write!(f, "{}: {maybe}{}", self.layer, self.reason)
    }
}

/// What takes a layer away on this host, or may, the surest first; with a failure or without.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = rules::standing(facts);
    found.sort_by_key(|finding| finding.certainty == Certainty::Possible);
    found
}

/// Why jobs have no ids of their own.
pub fn of_ids(refused: &NoIds) -> Option<Finding> {
    let remedy = refused.remedy()?;
    Some(Finding::certain("identity", refused.to_string(), remedy))
}

/// The same as a refusal to work without them, where it is known what to do.
pub fn refused_ids(refused: &NoIds) -> Option<Refused> {
    if let Some(failure) = Failure::of_ids(refused) {
        return Some(failure.explained());
    }
    let finding = of_ids(refused)?;
    Some(Refused {
        layer: finding.layer,
        reason: finding.reason,
        remedy: finding.remedy.to_string(),
    })
}

/// Why something failed on this host, with what to do.
pub fn explain(facts: &Facts, failure: &Failure) -> Refused {
    let mut found = findings(facts);
    found.extend(rules::suspicions(facts));
    found.retain(|finding| finding.accounts_for(failure));
    if found
        .iter()
        .any(|finding| finding.certainty == Certainty::Certain)
    {
        found.retain(|finding| finding.certainty == Certainty::Certain);
    }
    let Some(first) = found.first() else {
        return failure.unexplained();
    };
    let reasons: Vec<_> = found.iter().map(|finding| &*finding.reason).collect();
    let mut remedies: Vec<_> = found
        .iter()
        .map(|finding| finding.remedy.to_string())
        .collect();
    remedies.dedup();
    let (word, between) = match first.certainty {
        Certainty::Certain => ("", "; and "),
        Certainty::Possible => ("possibly because ", ", or because "),
    };
    Refused {
        layer: first.layer.clone(),
        reason: format!("{}: {word}{}", failure.said, reasons.join(between)),
        remedy: remedies.join("; then "),
    }
}

#[cfg(test)]
mod tests;
