//! What this host can and cannot do, and the mend for each.
