//! Which walls stood around a job, as outcomes and the status tell it.
//!
//! Not here: what a worker says about its layers on the wire, with details and remedies
//! ([`crate::wire::LayerReport`]).

use serde::{Deserialize, Serialize};

/// Which walls stood around a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isolation {
    /// Whether all security layers stood.
    pub level: IsolationLevel,
    /// Whether the job's ids are its slot's alone.
    pub identity: Identity,
    /// The layers that stood.
    pub layers: Vec<String>,
    /// The layers that did not, with the reason.
    pub missing: Vec<MissingLayer>,
}

/// Whether all security layers stood.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum IsolationLevel {
    /// All of them.
    Full,
    /// Some were missing, and the config allows that.
    Reduced,
    /// No worker has reported yet.
    #[default]
    Unknown,
}

/// Whether the job's ids are its slot's alone.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// Nobody else on the machine has them.
    Own,
    /// They are those of the user who runs wpool; namespaces alone separate.
    #[default]
    Shared,
}

/// A layer that did not stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissingLayer {
    /// Its name.
    pub layer: String,
    /// Why.
    pub reason: String,
}
