//! The reference tables of `docs/language.md`, from the same declarations that read the files.

use std::fmt::Write as _;

use super::file::{
    Expect, External, File, Firewall, Guest, Image, Link, Network, Nic, PortForward, Route, Rule, Vlan,
};
use super::mapping::Mapping;

/// All tables as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::new();
    table::<File>("The file", &mut out);
    table::<Network>("A network: `networks.NAME`", &mut out);
    table::<PortForward>("A port forward: an item of `networks.NAME.forward`", &mut out);
    table::<External>("An external leg: `networks.NAME.external`", &mut out);
    table::<Vlan>("A VLAN: `networks.NAME.vlans.NAME`", &mut out);
    table::<Link>("A link: an item of `links`", &mut out);
    table::<Guest>("A guest: `guests.NAME`", &mut out);
    table::<Image>("An image: `guests.NAME.image`", &mut out);
    table::<Nic>("A NIC: an item of `nics`", &mut out);
    table::<Route>("A route: an item of `routes`", &mut out);
    table::<Firewall>("A firewall: `guests.NAME.firewall`", &mut out);
    table::<Rule>("A rule: an item of `firewall.rules`", &mut out);
    table::<Expect>("An expectation: an item of `expect`", &mut out);
    out
}

fn table<T: Mapping>(title: &str, out: &mut String) {
    let _ = writeln!(out, "### {title}\n\n{}\n\n| key | value | meaning |\n|---|---|---|", T::DOC);
    for key in T::keys() {
        let need = if key.required { " (required)" } else { "" };
        let _ = writeln!(out, "| `{}`{need} | {} | {} |", key.name, (key.expected)(), key.doc);
    }
    out.push('\n');
}
