//! The mark that everything netloom creates carries: who made it, for which lab, as what.

use super::{Id, Kind};

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
        assert_eq!(read("netloom:x"), None);
    }
}
