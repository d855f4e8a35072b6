//! The matrix as a table in Markdown.

use crate::compare::Comparison;

/// A table for each system.
#[must_use]
pub fn markdown(comparison: &Comparison) -> String {
    super::summary(comparison)
}
