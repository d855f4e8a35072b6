//! The mark that everything netloom creates carries: who made it, for which lab, as what.

use super::{Id, Kind, names};

/// `netloom:LAB:KIND:NAME`, in a link's alias.
#[must_use]
pub fn write(lab: &str, id: &Id) -> String {
    format!("netloom:{lab}:{}:{}", id.kind.word(), id.name)
}

/// Lab and id of a mark; `None` for anything that is not one.
#[must_use]
pub fn read(text: &str) -> Option<(String, Id)> {
    let rest = text.strip_prefix("netloom:")?;
    let (lab, rest) = rest.split_once(':')?;
    let (kind, name) = rest.split_once(':')?;
    let kind = Kind::ALL.into_iter().find(|k| k.word() == kind)?;
    // A name becomes part of paths and of what people read.
    let odd = |c: char| !c.is_ascii_graphic() || c == '\\';
    if !names::is_lab(lab) || name.is_empty() || name.starts_with('.') || name.contains(odd) {
        return None;
    }
    Some((lab.to_owned(), Id::new(kind, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back() {
        let id = Id::new(Kind::Vlan, "fw/eth1.10");
        assert_eq!(read(&write("lab", &id)), Some(("lab".into(), id)));
        assert_eq!(read("my bridge"), None);
        for other in [
            "netloom:x",
            "netloom:--all:bridge:x",
            "netloom:a:bridge:",
            "netloom:a:Bridge:x",
            "netloom:a:service:..",
            "netloom:a:service:\u{1b}[2J",
            " netloom:a:tap:x",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
