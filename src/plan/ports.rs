//! Ports of the host that are somebody's already: another lab's forward, a program that listens.

use super::difference::digest;
use crate::error::{Error, Result};
use crate::inventory::Inventory;
use crate::resource::{HostPort, Node, Resource};

/// Both would be built, and the kernel would take the rule that it comes to first. What is in force stays: it is not for
/// the lab that was first to give way.
pub(super) fn refuse_forwarded(node: &Node, inventory: &Inventory) -> Result<()> {
    let Resource::Ruleset(ruleset) = &node.resource else { return Ok(()) };
    let in_force = inventory.found.get(&node.id).is_some_and(|found| found.digest == digest(&node.resource));
    if in_force {
        return Ok(());
    }
    for wanted in &ruleset.ports {
        if let Some((lab, theirs)) = inventory.forwards.iter().find(|(_, theirs)| theirs.overlaps(wanted)) {
            return Err(Error::host(format!(
                "lab `{lab}` forwards {theirs} of this host already, but this lab wants to forward {wanted}"
            ))
            .hint("choose another port, give both forwards an `address` of their own, or build one of the labs with `netloom up --sandbox`"));
        }
        if let Some(theirs) = inventory.listening.iter().find(|theirs| takes_from(wanted, theirs)) {
            return Err(Error::host(format!(
                "a program on this host listens on {theirs}, but this lab wants to forward {wanted}"
            ))
            .hint(
                "choose another port, give the forward an `address` of its own, or end the program (`ss -ltunp` names it)",
            ));
        }
    }
    Ok(())
}

/// Whether nobody would reach the program any more. On one address of many it may be a network's own server, which
/// forwards spare; and what a forward with an address takes is meant for no other.
fn takes_from(wanted: &HostPort, theirs: &HostPort) -> bool {
    let hidden = match (wanted.address, theirs.address) {
        (_, None) => true,
        (None, Some(theirs)) => theirs.is_loopback(),
        (Some(ours), Some(theirs)) => ours == theirs,
    };
    hidden && wanted.overlaps(theirs)
}
