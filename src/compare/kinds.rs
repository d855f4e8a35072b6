//! Namespaces and VMs beside one another: comparisons of the same constructs with each kind of guests, as one.

use super::{Cell, Comparison, Row};

impl Comparison {
    /// Comparisons as one: rows of the first kind of guests, then of the next.
    #[must_use]
    pub fn joined(all: Vec<Comparison>) -> Comparison {
        let guests: Vec<&str> = all.iter().map(|one| one.guests.as_str()).collect();
        let guests = guests.join(",");
        let seconds = all.iter().map(|one| one.seconds).sum();
        Comparison { guests, rows: all.into_iter().flat_map(|one| one.rows).collect(), seconds }
    }

    /// Each kind of guests by itself, for what is drawn one below the other.
    #[must_use]
    pub fn by_kind(&self) -> Vec<Comparison> {
        let one = |guests: &str| {
            let rows: Vec<Row> = self.rows.iter().filter(|row| row.guests == guests).cloned().collect();
            let seconds = rows.iter().map(|row| row.seconds).sum();
            Comparison { guests: guests.to_owned(), rows, seconds }
        };
        if self.guests.contains(',') { self.guests.split(',').map(one).collect() } else { vec![self.clone()] }
    }

    /// In how many cells all kinds of guests show the same, of how many that were measured with each; `None` with one
    /// kind of guests.
    #[must_use]
    pub fn kinds_agree(&self) -> Option<(usize, usize)> {
        let (first, rest) = self.guests.split_once(',')?;
        let others: Vec<&str> = rest.split(',').collect();
        let (mut equal, mut compared) = (0, 0);
        for row in self.rows.iter().filter(|row| row.guests == first) {
            for cell in &row.cells {
                let found: Vec<&Cell> =
                    others.iter().filter_map(|kind| self.same(row, kind)?.cell(cell.property)).collect();
                if found.len() == others.len() {
                    compared += 1;
                    equal += usize::from(found.iter().all(|other| other.measured == cell.measured));
                }
            }
        }
        Some((equal, compared))
    }

    /// The row of the same construct and state with another kind of guests.
    #[must_use]
    pub fn same(&self, row: &Row, guests: &str) -> Option<&Row> {
        self.rows.iter().find(|other| {
            other.guests == guests && other.construct == row.construct && other.state == row.state
        })
    }
}
