//! Kernel names. The kernel allows 15 bytes (`IFNAMSIZ` less the NUL), so link names are a digest of the readable
//! name, which stands in the link's alias.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use sha2::{Digest, Sha256};

use crate::topology::Mac;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// `nl` and 11 characters: 55 bits of a digest of lab, kind and name.
#[must_use]
pub fn link(lab: &str, kind: &str, name: &str) -> String {
    let digest = digest(&["link", lab, kind, name]);
    let mut out = String::from("nl");
    let mut bits = u64::from_be_bytes(first(&digest));
    for _ in 0..11 {
        out.push(char::from(ALPHABET[usize::try_from(bits >> 59).unwrap_or(0)]));
        bits <<= 5;
    }
    out
}

/// Whether a link's name is one that [`link`] could have made.
#[must_use]
pub fn is_link(name: &str) -> bool {
    name.strip_prefix("nl")
        .is_some_and(|rest| rest.len() == 11 && rest.bytes().all(|byte| ALPHABET.contains(&byte)))
}

/// Whether a lab can have this name: 1 to 32 of a-z, 0-9 and `-`, which is not at an end.
#[must_use]
pub fn is_lab(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 32
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// A link group (`IFLA_GROUP`) for all links of a lab: `'n' << 24` and 24 bits of digest. It can be given in the very
/// request that creates a link, which an alias cannot, so no crash leaves a link of ours without any mark.
#[must_use]
pub fn group(lab: &str) -> u32 {
    let digest = digest(&["group", lab]);
    u32::from_be_bytes([b'n', digest[0], digest[1], digest[2]])
}

/// The group that a handful of a lab's links, each with its alias, is put into to be removed with one request.
#[must_use]
pub fn leaving_group(lab: &str) -> u32 {
    let digest = digest(&["leaving", lab]);
    u32::from_be_bytes([b'n', digest[0], digest[1], digest[2]])
}

/// A stable MAC address with QEMU's prefix, for links that the file gives none.
#[must_use]
pub fn mac(lab: &str, kind: &str, name: &str) -> Mac {
    let digest = digest(&["mac", lab, kind, name]);
    Mac([0x52, 0x54, 0x00, digest[0], digest[1], digest[2]])
}

/// File name of a guest's network namespace. Names have no dots, so it is unambiguous.
#[must_use]
pub fn netns(lab: &str, guest: &str) -> String {
    format!("netloom.{lab}.{guest}")
}

/// The lab and the guest, or the network with a router, of a namespace's file name; `None` for a name that [`netns`]
/// does not make.
#[must_use]
pub fn read_netns(file: &str) -> Option<(&str, &str)> {
    let (lab, guest) = file.strip_prefix("netloom.")?.split_once('.')?;
    (is_lab(lab) && !guest.is_empty() && !guest.contains('.')).then_some((lab, guest))
}

/// Name of the lab's nftables table.
#[must_use]
pub fn table(lab: &str) -> String {
    format!("netloom_{}", lab.replace('-', "_"))
}

/// The lab that has a [`table`] of this name, if one can. A lab's name has no `_`.
#[must_use]
pub fn read_table(table: &str) -> Option<String> {
    let lab = table.strip_prefix("netloom_").filter(|rest| !rest.contains('-'))?.replace('_', "-");
    is_lab(&lab).then_some(lab)
}

/// File name of the namespace of a network's own router; no guest's name has a `+`.
#[must_use]
pub fn router_netns(lab: &str, network: &str) -> String {
    netns(lab, &router(network))
}

/// Name of a network's own router among a lab's resources.
#[must_use]
pub fn router(network: &str) -> String {
    format!("{network}+router")
}

/// Name of the service that is the DHCP client of a guest's interface.
#[must_use]
pub fn dhcp_client(guest: &str, interface: &str) -> String {
    format!("{guest}/dhcp-{interface}")
}

/// Name of a network where its services stand beside those of guests, one of which may be called the same.
#[must_use]
pub fn network(network: &str) -> String {
    format!("{network}+network")
}

/// The addresses between the host and a network's own router: the host's and the router's, of IPv4 and of IPv6. They
/// are seen on this link alone, so they come from where nobody else's are: 240.0.0.0/5 (RFC 1112 keeps it for later, and
/// Linux takes it as unicast since 2.6.25), and a unique local prefix (RFC 4193) of netloom's own. The space of carriers
/// (100.64.0.0/10, RFC 6598) will not do: Tailscale has its peers there and drops it on every other link.
#[must_use]
pub fn transit(lab: &str, network: &str) -> [[IpNetwork; 2]; 2] {
    let digest = digest(&["transit", lab, network]);
    let bits = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let low = u32::from(Ipv4Addr::new(240, 0, 0, 0)) | ((bits >> 5) & !3);
    let six = |host: u16| {
        let part = |i: usize| u16::from_be_bytes([digest[i], digest[i + 1]]);
        Ipv6Addr::new(0xfd6e, 0x6c6f, 0x6f6d, part(4), part(6), part(8), part(10), host)
    };
    let four = |host: u32| net(IpAddr::V4(Ipv4Addr::from(low + host)), 30);
    [[four(1), four(2)], [net(IpAddr::V6(six(1)), 126), net(IpAddr::V6(six(2)), 126)]]
}

/// The prefix lengths above are those of their families, so the fallback is never taken.
fn net(ip: IpAddr, prefix: u8) -> IpNetwork {
    IpNetwork::new(ip, prefix).unwrap_or_else(|_| IpNetwork::from(ip))
}

/// Name of a guest's domain.
#[must_use]
pub fn domain(lab: &str, guest: &str) -> String {
    format!("{lab}-{guest}")
}

/// SHA-256 of the parts, each closed by a NUL so that no two lists collide.
fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hasher.finalize().into()
}

fn first(digest: &[u8; 32]) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&digest[..8]);
    out
}

/// Lower-case hex SHA-256 of a text.
#[must_use]
pub fn sha256(text: &[u8]) -> String {
    let digest: [u8; 32] = Sha256::digest(text).into();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_fit_the_kernel_and_differ() {
        let a = link("lab", "bridge", "core");
        assert!(a.len() <= 15, "{a}");
        assert_ne!(a, link("lab", "bridge", "cor"));
        assert_ne!(link("a", "bc", "d"), link("ab", "c", "d"));
        assert_eq!(a, link("lab", "bridge", "core"));
        assert!(is_link(&a));
        for other in ["nl", "nlab0", "nlABCDEFGHIJK", "nl0123456789a", "br-nlabcdefgh", "nlabcdefghijkl"] {
            assert!(!is_link(other), "{other}");
        }
    }

    #[test]
    fn names_that_are_nearly_ours_are_not() {
        assert_eq!(read_netns(&netns("a-b", "fw")), Some(("a-b", "fw")));
        assert_eq!(read_netns(&router_netns("a-b", "lan")), Some(("a-b", "lan+router")));
        for other in
            ["netloomx.a.b", "netloom.a", "netloom.a.", "netloom..b", "netloom.a.b.c", "netloom.--all.b"]
        {
            assert_eq!(read_netns(other), None, "{other}");
        }
        assert_eq!(read_table(&table("a-b")).as_deref(), Some("a-b"));
        for other in
            ["netloom_", "netloom", "netloomx_a", "netloom_X", "netloom__a", "netloom_a-b", "a_netloom_b"]
        {
            assert_eq!(read_table(other), None, "{other}");
        }
    }
}
