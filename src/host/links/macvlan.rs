//! Interfaces with MAC addresses of their own on links of the host.

use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_route::link::{InfoKind, MacVlanMode as KernelMode};
use rtnetlink::{LinkMacVlan, LinkMacVtap, LinkMessageBuilder, LinkUnspec};

use super::create::{before_birth, take_part};
use super::uplink::physical;
use super::{Links, device};
use crate::error::{Context, Error, Result};
use crate::host::netns;
use crate::resource::{Id, Macvlan, MacvlanMode, Place, names};

impl Links {
    /// Makes a macvlan, born in its own place: the kernel looks the parent up on the host, where the request is made.
    ///
    /// # Errors
    /// Exit 3 when the parent is missing, a port of a bridge, or has a smaller MTU; else when the kernel refuses.
    pub async fn create_macvlan(&self, id: &Id, macvlan: &Macvlan) -> Result<()> {
        match self.make_macvlan(id, macvlan).await {
            // The kernel's words for these say little, so the parent is looked at again.
            Err(e) => Err(self.unfit_parent(macvlan).await?.unwrap_or(e)),
            done => done,
        }
    }

    async fn make_macvlan(&self, id: &Id, macvlan: &Macvlan) -> Result<()> {
        let parent = self.require(&Place::Host, &macvlan.parent).await?;
        // Until Linux 6.13 a name is refused when a link of the namespace that asks has it, wherever the new one is born:
        // the guest's `eth0` comes to the world under a name that nobody has.
        let born = match &macvlan.place {
            Place::Host => macvlan.link.clone(),
            Place::Netns(_) => names::link(&self.lab, "macvlan", &id.name),
        };
        if macvlan.tap {
            return self.make_macvtap(id, macvlan, parent).await;
        }
        let mut message = LinkMacVlan::new(&born, parent, kernel_mode(macvlan.mode))
            .address(macvlan.mac.0.to_vec())
            .mtu(macvlan.mtu)
            .link_group(names::group(&self.lab));
        let namespace: Option<OwnedFd> = match &macvlan.place {
            Place::Host => None,
            Place::Netns(name) => Some(netns::open(name)?),
        };
        if let Some(fd) = &namespace {
            message = message.setns_by_fd(fd.as_raw_fd());
        }
        before_birth(&macvlan.place, macvlan.advertised)?;
        self.add(&Place::Host, &macvlan.link, message.build()).await?;
        let index = self.adopt(id, &macvlan.place, &born, true).await?;
        if born != macvlan.link {
            let named = LinkUnspec::new_with_index(index).name(macvlan.link.clone()).build();
            let wire = self.at(&macvlan.place)?;
            let renamed = wire.set_link(named);
            renamed.context(|| format!("cannot name link `{}`", macvlan.link))?;
        }
        self.set_addresses(&macvlan.place, index, &macvlan.addresses, &[]).await?;
        self.set_up(&macvlan.place, index, true).await
    }

    /// Makes a macvtap, on the host. It is the VM's and not the host's: the host gives itself no address on it. Until QEMU
    /// opens the device the host hears what is meant for the VM, and would answer ARP for its own addresses with the VM's
    /// MAC, and make itself the very address that the VM will make itself of a router's prefix.
    async fn make_macvtap(&self, id: &Id, macvlan: &Macvlan, parent: u32) -> Result<()> {
        let index = device::free_index();
        let message = LinkMacVtap::new(&macvlan.link, parent, kernel_mode(macvlan.mode))
            .index(index)
            .address(macvlan.mac.0.to_vec())
            .mtu(macvlan.mtu)
            .link_group(names::group(&self.lab));
        self.add(&Place::Host, &macvlan.link, message.build()).await?;
        self.adopt(id, &Place::Host, &macvlan.link, false).await?;
        take_part(&*self.at(&Place::Host)?, index, &macvlan.link, false, true)?;
        device::ready(&macvlan.link, index)?;
        self.hear_all_groups(index).await?;
        self.set_up(&Place::Host, index, true).await
    }

    /// The kernel does not see which multicast groups a VM joins, which IPv6 cannot do without: it gets all of them, as
    /// it would on a switch.
    async fn hear_all_groups(&self, index: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).allmulticast(true).build();
        let wire = self.at(&Place::Host)?;
        wire.set_link(message).context(|| "cannot open a macvtap to multicast".into())
    }

    /// Brings a macvlan to what is wanted; place and parent are the same.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn change_macvlan(&self, wanted: &Macvlan, found: &Macvlan) -> Result<()> {
        let index = self.require(&wanted.place, &wanted.link).await?;
        super::mend::allow_ipv6(&wanted.place, &wanted.link)?;
        if wanted.tap {
            take_part(&*self.at(&Place::Host)?, index, &wanted.link, false, true)?;
        }
        if wanted.mode != found.mode {
            let mode = kernel_mode(wanted.mode);
            let message = if wanted.tap {
                LinkMessageBuilder::<LinkMacVtap>::new_with_info_kind(InfoKind::MacVtap)
                    .index(index)
                    .mode(mode)
                    .build()
            } else {
                LinkMessageBuilder::<LinkMacVlan>::new_with_info_kind(InfoKind::MacVlan)
                    .index(index)
                    .mode(mode)
                    .build()
            };
            let wire = self.at(&wanted.place)?;
            let changed = wire.change_link(message);
            changed.context(|| format!("cannot change the mode of `{}`", wanted.link))?;
        }
        if (wanted.mac, wanted.mtu) != (found.mac, found.mtu) {
            self.set_mac_and_mtu(&wanted.place, index, wanted.mac.0, wanted.mtu).await?;
        }
        self.set_addresses(&wanted.place, index, &wanted.addresses, &found.addresses).await?;
        self.keep(&wanted.place, index).await
    }

    /// Why the link below cannot carry one, if it cannot.
    async fn unfit_parent(&self, macvlan: &Macvlan) -> Result<Option<Error>> {
        let name = &macvlan.parent;
        let state = self.observe(&Place::Host).await?;
        let Some(parent) = state.link(name) else {
            let error = Error::host(format!("there is no link `{name}` to put an interface on"));
            return Ok(Some(error.hint(format!("links of this host: {}", physical(&state).join(", ")))));
        };
        if let Some(bridge) = state.name(parent.controller) {
            let error =
                Error::host(format!("`{name}`, which shall carry an interface, is a port of `{bridge}`"));
            return Ok(Some(error.hint(format!("name `{bridge}` or another link instead"))));
        }
        if parent.mtu < macvlan.mtu {
            let (has, wants) = (parent.mtu, macvlan.mtu);
            let error = Error::host(format!(
                "`{name}` has an MTU of {has}, less than the {wants} of an interface on it"
            ));
            return Ok(Some(error.hint(format!("ask for an MTU of {has}, or give `{name}` more"))));
        }
        Ok(None)
    }
}

fn kernel_mode(mode: MacvlanMode) -> KernelMode {
    match mode {
        MacvlanMode::Bridge => KernelMode::Bridge,
        MacvlanMode::Vepa => KernelMode::Vepa,
        MacvlanMode::Private => KernelMode::Private,
    }
}
