//! Endpoints, probes, verdicts, matrices.
