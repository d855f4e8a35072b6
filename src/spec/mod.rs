//! The YAML file's mirror, with source spans; no logic.
