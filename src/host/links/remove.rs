//! Removing all of a lab's links, some at a time.
//!
//! The kernel holds its one lock for all links of all namespaces while it removes what one request asks for, and waits in
//! there: some hundredths of a second for each request, and for each bridge again (`br_multicast_dev_del`, an
//! `rcu_barrier`). One request for each link waits longest; one for all of them holds up everybody else on the host for as
//! long as it takes. So links go in handfuls.

use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::LinkUnspec;

use super::wire::Wire;
use super::{LinkKind, LinkState, Links, device};
use crate::error::{Context, Result};
use crate::resource::{Place, mark, names};

/// Bridges that go with one request: about an eighth of a second, measured at 16 ms for each.
const BRIDGES: usize = 8;
/// Other links that go with one request: 0.4 ms for each.
const OTHERS: usize = 128;

impl Links {
    /// Removes every link of the lab in a place. Fine when there is none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn delete_all(&self, place: &Place) -> Result<()> {
        let (group, handful) = (names::group(&self.lab), names::leaving_group(&self.lab));
        let links = self.observe(place).await?.links;
        let grouped = links.values().filter(|link| [group, handful].contains(&link.group));
        let (ours, others): (Vec<&LinkState>, Vec<&LinkState>) =
            grouped.partition(|link| link.belongs_to(&self.lab, place));
        // A group is a number that anybody may use; and a link without an alias would lose what says that it is ours.
        let unmarked = |link: &&LinkState| mark::read(&link.alias).is_none();
        let is_bridge = |link: &&LinkState| matches!(link.kind, LinkKind::Bridge { .. });
        let (alone, marked): (Vec<&LinkState>, Vec<&LinkState>) =
            ours.into_iter().partition(|link| !others.is_empty() || unmarked(link));
        for link in alone {
            if *place == Place::Host && is_bridge(&link) {
                self.free_uplinks(&link.name).await?;
            }
            self.delete(place, &link.name).await?;
        }
        let (bridges, rest): (Vec<&LinkState>, Vec<&LinkState>) = marked.into_iter().partition(is_bridge);
        let wire = self.at(place)?;
        let unseen = others.is_empty();
        for handfuls in [rest.chunks(OTHERS), bridges.chunks(BRIDGES)] {
            for links in handfuls {
                delete(&wire, links, handful)?;
                // As the system sees to its own files, so do we to those that we made for macvtaps.
                links.iter().for_each(|link| device::remove(link.index));
                tokio::task::yield_now().await;
            }
        }
        // One whose alias is no text cannot be listed, and is the lab's by its group.
        if unseen { delete(&wire, &[], group) } else { Ok(()) }
    }
}

/// Removes links with one request: those of a group that they are put into first.
fn delete(wire: &Wire, links: &[&LinkState], group: u32) -> Result<()> {
    let gone = |done: std::result::Result<(), super::wire::Refusal>| match done {
        Err(e) if e.is(libc::ENODEV) => Ok(()),
        other => other,
    };
    for link in links {
        // Those that go with another, as the two ends of a cable do, may be gone already.
        let grouped = wire.set_link(LinkUnspec::new_with_index(link.index).link_group(group).build());
        gone(grouped).context(|| format!("cannot remove link `{}`", link.name))?;
    }
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    gone(wire.delete_link(message)).context(|| format!("cannot remove the links of group {group}"))
}
