//! What exists on the host and is ours, found by its mark.
