//! Which probes may be under way at the same time. The kernel has one table of neighbours for all network namespaces together,
//! of at most `net.ipv4.neigh.default.gc_thresh3` entries (1024; and as many for IPv6), and does not forget an entry for five
//! seconds, whoever needs another one (`neigh_forced_gc`). A pair of guests takes two, one at each end. So pairs are asked in
//! windows that fit, and what a window's ends have learned of one another is forgotten before the next.

use std::collections::BTreeSet;

use crate::topology::Endpoint;

/// Pairs in a window: half of the table is left for everybody else.
const PAIRS: usize = 256;

/// Who asks, and who is asked.
type Pair<'e> = (&'e Endpoint, &'e Endpoint);

/// What is to be asked, by window. That of one source stands together, so that few ends belong to a window.
pub(super) fn windows<T>(trials: &mut [T], pair: impl Fn(&T) -> Pair<'_>) -> Vec<Vec<&mut T>> {
    let mut rest: Vec<&mut T> = trials.iter_mut().collect();
    rest.sort_by(|a, b| pair(a).cmp(&pair(b))); // stable: services stay in the file's order
    let mut windows = Vec::new();
    let mut window: Vec<&mut T> = Vec::new();
    let mut pairs = 0;
    for trial in rest {
        if window.last().is_none_or(|last| pair(last) != pair(trial)) {
            if pairs == PAIRS {
                windows.push(std::mem::take(&mut window));
                pairs = 0;
            }
            pairs += 1;
        }
        window.push(trial);
    }
    windows.push(window);
    windows
}

/// Everybody who asks or is asked in a window.
pub(super) fn ends<T>(window: &[&mut T], pair: impl Fn(&T) -> Pair<'_>) -> BTreeSet<Endpoint> {
    window
        .iter()
        .flat_map(|trial| {
            let (from, to) = pair(trial);
            [from.clone(), to.clone()]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(number: usize) -> Endpoint {
        Endpoint::Guest(format!("g{number:02}"))
    }

    #[test]
    fn all_pairs_of_many_guests_fall_into_windows_by_source() {
        let mut asked = Vec::new();
        for service in ["icmp", "tcp"] {
            for pair in (0..40).flat_map(|to| (0..40).map(move |from| (from, to))).filter(|(a, b)| a != b) {
                asked.push((guest(pair.0), guest(pair.1), service));
            }
        }
        let all = asked.len();
        let windows = windows(&mut asked, |one| (&one.0, &one.1));
        assert_eq!(windows.iter().map(Vec::len).sum::<usize>(), all);
        assert_eq!(windows.len(), (40 * 39_usize).div_ceil(PAIRS));
        for window in &windows {
            let pairs: BTreeSet<_> = window.iter().map(|one| (one.0.clone(), one.1.clone())).collect();
            assert!(pairs.len() <= PAIRS && window.len() == 2 * pairs.len());
            let sources: BTreeSet<_> = window.iter().map(|one| one.0.clone()).collect();
            assert!(sources.len() <= PAIRS / 39 + 2, "{sources:?}");
            let all: BTreeSet<_> = pairs.iter().flat_map(|(from, to)| [from.clone(), to.clone()]).collect();
            assert_eq!(ends(window, |one| (&one.0, &one.1)), all);
            assert!(window.windows(2).any(|two| two[0].2 != two[1].2));
        }
    }

    #[test]
    fn few_pairs_are_one_window_in_any_order() {
        let mut asked = vec![(guest(2), guest(1)), (guest(1), guest(2)), (guest(2), guest(1))];
        assert_eq!(windows(&mut asked, |one| (&one.0, &one.1)).len(), 1);
    }
}
