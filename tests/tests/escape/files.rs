//! To be written later.

use super::attack::Attack;

pub(crate) const ATTACKS: &[Attack] = &[];

use wpool_tests::trial::Test;

pub(crate) const TESTS: &[Test] = &[];
