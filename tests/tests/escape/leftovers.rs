//! To be written.

use super::attack::Attack;

pub(crate) const ATTACKS: &[Attack] = &[];
