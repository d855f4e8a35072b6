//! Walks a plan, undoes it on failure, verifies.
