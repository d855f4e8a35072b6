//! A message of the kernel's, decoded. Of a link it tells some forty things, of which netloom asks about a quarter: the others
//! are passed over. Decoding them took as long as all the rest, and one that the library cannot read would hide the link.

use netlink_packet_core::{
    DecodeError, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator, Parseable,
    ParseableParametrized,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkHeader, LinkMessage};

use super::HEADER;

/// `RTM_NEWLINK` (`linux/rtnetlink.h`).
const NEW_LINK: u16 = 16;
/// How long the head of a message about a link is (`struct ifinfomsg`).
const LINK_HEADER: usize = 16;
/// What is asked about: `IFLA_ADDRESS`, `_IFNAME`, `_MTU`, `_LINK`, `_MASTER`, `_OPERSTATE`, `_LINKINFO`, `_IFALIAS`, `_AF_SPEC`,
/// `_GROUP`, `_LINK_NETNSID`, `_PROP_LIST` (`linux/if_link.h`).
const ASKED: [u16; 12] = [1, 3, 4, 5, 10, 16, 18, 20, 26, 27, 37, 52];

/// Decodes one message.
pub(super) fn decode(message: &[u8]) -> Result<NetlinkMessage<RouteNetlinkMessage>, DecodeError> {
    let header = NetlinkHeader::parse(&NetlinkBuffer::new_checked(&message)?)?;
    match message.get(HEADER..) {
        Some(body) if header.message_type == NEW_LINK => {
            let payload = RouteNetlinkMessage::NewLink(link(body)?);
            Ok(NetlinkMessage::new(header, NetlinkPayload::InnerMessage(payload)))
        }
        _ => NetlinkMessage::deserialize(message),
    }
}

fn link(body: &[u8]) -> Result<LinkMessage, DecodeError> {
    let mut message = LinkMessage::default();
    message.header = LinkHeader::parse(body)?;
    message.attributes.reserve(ASKED.len());
    for attribute in NlasIterator::new(body.get(LINK_HEADER..).unwrap_or_default()) {
        let attribute = attribute?;
        if ASKED.contains(&attribute.kind()) {
            let family = message.header.interface_family;
            message.attributes.push(LinkAttribute::parse_with_param(&attribute, family)?);
        }
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as the kernel writes it: header, head, attributes.
    fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![0; LINK_HEADER];
        body[4] = 7; // the index
        for (kind, value) in attributes {
            let length = u16::try_from(4 + value.len()).unwrap_or_default();
            body.extend([length.to_ne_bytes(), kind.to_ne_bytes()].concat());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(HEADER + body.len()).unwrap_or_default();
        [length.to_ne_bytes().as_slice(), &NEW_LINK.to_ne_bytes(), &[2, 0], &[0; 8], &body].concat()
    }

    #[test]
    fn of_a_link_all_that_is_asked_about_is_told_and_nothing_else() {
        let odd: (u16, &[u8]) = (6, &[0xff, 0xfe, 0]); // IFLA_QDISC, and no text
        let told =
            message(&[odd, (3, b"eth0\0"), (13, &1000_u32.to_ne_bytes()), (4, &1500_u32.to_ne_bytes())]);
        let Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(inner), .. }) = decode(&told) else {
            panic!("it cannot be read");
        };
        let RouteNetlinkMessage::NewLink(link) = inner else { panic!("{inner:?}") };
        assert_eq!(link.header.index, 7);
        assert_eq!(link.attributes, [LinkAttribute::IfName("eth0".into()), LinkAttribute::Mtu(1500)]);
        // What is asked about and cannot be read is told to be so.
        assert!(decode(&message(&[(3, &[0xff, 0xfe, 0])])).is_err());
        assert!((0..HEADER).all(|length| decode(&told[..length]).is_err()));
    }
}
