//! The page.

use crate::compare::Comparison;

/// A page.
#[must_use]
pub fn html(comparison: &Comparison) -> String {
    super::summary(comparison)
}
