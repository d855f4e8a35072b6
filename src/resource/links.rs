//! Interfaces on top of other links.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{MacvlanMode, Place, Port};
use crate::topology::Mac;

/// A VLAN interface.
#[derive(Debug, Clone, PartialEq)]
pub struct Vlan {
    /// Where.
    pub place: Place,
    /// Kernel name of the link below: a bridge, a guest's NIC, a link of the host, or a VLAN interface on that.
    pub parent: String,
    /// Kernel name.
    pub link: String,
    /// VID.
    pub vid: u16,
    /// How it is tagged.
    pub protocol: VlanProtocol,
    /// Bytes.
    pub mtu: u32,
    /// The bridge it is plugged into, on the host: a tagged uplink.
    pub port: Option<Port>,
    /// Static addresses. On the host one without any is no leg of the host's.
    pub addresses: Vec<IpNetwork>,
    /// Whether a guest's interface takes IPv6 addresses from router advertisements; `None` on the host, where that is
    /// not ours to say. The kernel asks only when the interface is made.
    pub advertised: Option<bool>,
}

/// Which tag the frames of a VLAN carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VlanProtocol {
    /// 802.1Q: a customer's tag.
    #[default]
    Dot1q,
    /// 802.1ad: a provider's tag, around customers' tags.
    Dot1ad,
}

impl VlanProtocol {
    /// The standard's name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            VlanProtocol::Dot1q => "802.1Q",
            VlanProtocol::Dot1ad => "802.1ad",
        }
    }
}

/// An interface with a MAC address of its own on a link of the host, which need not be ours: a guest's NIC without a
/// bridge.
#[derive(Debug, Clone, PartialEq)]
pub struct Macvlan {
    /// Whether it is a macvtap: what comes in is for whoever opens its character device, such as a VM, and not for the
    /// place it lives in.
    pub tap: bool,
    /// Where it lives; it is born there.
    pub place: Place,
    /// Kernel name of the link below, on the host.
    pub parent: String,
    /// Kernel name.
    pub link: String,
    /// MAC address.
    pub mac: Mac,
    /// Bytes; at most the parent's.
    pub mtu: u32,
    /// Whom it reaches.
    pub mode: MacvlanMode,
    /// Static addresses.
    pub addresses: Vec<IpNetwork>,
    /// Whether a guest's interface takes IPv6 addresses from router advertisements; `None` on the host, where that is
    /// not ours to say. The kernel asks only when the interface is made.
    pub advertised: Option<bool>,
}

impl MacvlanMode {
    /// The word of the kernel's tools.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            MacvlanMode::Bridge => "bridge",
            MacvlanMode::Vepa => "vepa",
            MacvlanMode::Private => "private",
        }
    }
}

/// A VXLAN tunnel (RFC 7348) between two addresses, as a port of a bridge on the host. Its packets travel in another
/// network stack, where its UDP socket is.
#[derive(Debug, Clone, PartialEq)]
pub struct Vxlan {
    /// Kernel name, on the host.
    pub link: String,
    /// Where its packets travel.
    pub underlay: Place,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// Address of the underlay that its packets leave with.
    pub local: IpAddr,
    /// Address that they go to; of the same family.
    pub remote: IpAddr,
    /// Bytes; on an underlay of 1500 at most 1450, or 1430 over IPv6, for packets to stay whole.
    pub mtu: u32,
    /// Where it is plugged in.
    pub port: Port,
}
