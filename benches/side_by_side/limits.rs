//! What is wanted, so that the tables can say how far it is.

use crate::figures::{Figure, Store};

/// A bound on a figure of netloom's.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// At most so many times what another takes for the same work; less than 1 for faster.
    Times(f64),
    /// At most so much, in the figure's unit.
    Value(f64),
}

/// What is wanted of netloom for a work, beside another: `against` is empty for the figure by itself.
pub(crate) fn wanted(figure: &Figure, against: &str) -> Option<Limit> {
    let limit = match (figure.part.as_str(), figure.work.as_str(), against, figure.n) {
        ("fabric", "up", "raw netlink", _) => Limit::Times(1.5),
        ("fabric", "up", "ip -batch", _) => Limit::Times(0.5),
        ("fabric", "up, chain of switches", "mininet", _) => Limit::Times(1.0 / 15.0),
        ("fabric", "memory of up", "", 1000..=1999) => Limit::Value(60.0),
        ("teardown", _, "raw netlink" | "raw netlink, in chunks", _) => Limit::Times(1.05),
        ("teardown", _, "mininet", _) => Limit::Times(0.2),
        ("teardown", "down until gone, chain of switches", "", 100) => Limit::Value(0.7),
        ("held", work, "", _) if work.starts_with("link add") => Limit::Value(0.2),
        ("converged", "up, nothing to change" | "plan" | "status", "", 1000) => Limit::Value(0.25),
        ("converged", "up, nothing to change" | "plan" | "status", "raw dump", _) => Limit::Times(2.0),
        ("converged", "one guest more", "up, nothing to change", _) => Limit::Times(1.2),
        ("machines", "up until every guest is ready", by, _) if by.starts_with("bare") => Limit::Times(1.05),
        ("machines", "up until every guest is ready", by, 10..) if by.starts_with("virt-install") => {
            Limit::Times(0.5)
        }
        ("converged", "nft transactions of one rule changed", "", _) => Limit::Value(1.0),
        ("small", "--version", "", _) => Limit::Value(0.01),
        ("small", "validate", "", 3) => Limit::Value(0.01),
        ("small", "validate", "", 10_000) => Limit::Value(0.25),
        ("small", "memory of validate", "", 10_000) => Limit::Value(150.0),
        ("small", "size of the program", "", _) => Limit::Value(15.0),
        ("probes", "test of all ordered pairs, ICMP and TCP", "", 100) => Limit::Value(5.0),
        _ => return None,
    };
    Some(limit)
}

/// With whom a figure of netloom's is compared: the same work and size by others, or what `wanted` names besides.
pub(crate) fn compared<'a>(store: &'a Store, own: &Figure) -> Vec<&'a Figure> {
    let same = |f: &&Figure| {
        f.who != "netloom" && f.part == own.part && f.work == own.work && f.n == own.n && f.unit == own.unit
    };
    let base = if own.work.starts_with("one ") { "up, nothing to change" } else { "read everything" };
    let other = |f: &&Figure| {
        let bare = own.unit == "s" && !own.work.starts_with("processor time");
        own.part == "converged" && bare && f.part == own.part && f.n == own.n && f.work == base
    };
    store.figures.iter().filter(|f| same(f) || other(f)).collect()
}

/// The name under which `wanted` knows the other one.
pub(crate) fn name_of(other: &Figure) -> &str {
    if other.who == "netloom" { &other.work } else { &other.who }
}
