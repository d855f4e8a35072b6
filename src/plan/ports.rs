//! Ports of the host that two labs want to forward.

use super::difference::digest;
use crate::error::{Error, Result};
use crate::inventory::Inventory;
use crate::resource::{Node, Resource};

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
    }
    Ok(())
}
