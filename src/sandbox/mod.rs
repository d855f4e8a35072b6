//! A private network namespace that plays the host.
