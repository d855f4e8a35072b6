//! Desired against observed: changes with reasons.
