//! The tables: on the terminal, and between the markers of `docs/performance.md`, with the plots beside it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::figures::{Figure, Store};
use crate::limits::{Limit, compared, name_of, wanted};
use crate::measure::median;
use crate::plot;

/// Between which the tables stand: of a machine that was left alone, and of one that was kept busy.
const QUIET: [&str; 2] = ["<!-- bench: begin -->", "<!-- bench: end -->"];
const BUSY: [&str; 2] = ["<!-- bench on a busy machine: begin -->", "<!-- bench on a busy machine: end -->"];

/// Headings of the parts.
const TITLES: [(&str, &str); 8] = [
    ("fabric", "Building a fabric"),
    ("teardown", "Removing it"),
    ("held", "What other programs wait for meanwhile"),
    ("converged", "A lab that is up already"),
    ("probes", "Probes"),
    ("machines", "Virtual machines"),
    ("curve", "Simultaneous boots"),
    ("small", "Every call"),
];

/// Prints the tables, and writes them unless only printing is wanted.
pub(crate) fn write(store: &Store, print: bool) -> Result<()> {
    let tables = tables(store)?;
    println!("\n{tables}");
    if print {
        return Ok(());
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    if store.busy == 0 {
        for (name, svg) in plot::all(store) {
            fs::write(docs.join(name), svg)?;
        }
    }
    let [begin, end] = if store.busy == 0 { QUIET } else { BUSY };
    let page = docs.join("performance.md");
    let text = fs::read_to_string(&page)?;
    let (before, rest) = text.split_once(begin).ok_or("docs/performance.md has lost a marker")?;
    let (_, after) = rest.split_once(end).ok_or("docs/performance.md has lost a marker")?;
    fs::write(&page, format!("{before}{begin}\n\n{tables}\n{end}{after}"))?;
    println!("written to {}", page.display());
    Ok(())
}

fn tables(store: &Store) -> Result<String> {
    let mut text = format!("Machine: {}", store.machine);
    match store.busy {
        0 => text.push_str(".\n"),
        busy => writeln!(text, "; {busy} other processes counted all the time.")?,
    }
    for (part, title) in TITLES {
        let Some(occasion) = store.occasions.get(part) else { continue };
        let busy = if store.busy == 0 { "" } else { ", on a busy machine" };
        writeln!(text, "\n### {title}{busy}\n")?;
        if store.busy == 0
            && let Some(alt) = plot::caption(store, part)
        {
            writeln!(text, "![{alt}](performance-{part}.svg)\n")?;
        }
        let figures: Vec<&Figure> = store.figures.iter().filter(|figure| figure.part == part).collect();
        if !figures.is_empty() {
            text.push_str("| | N | by | median | least – most | netloom takes | wanted |\n|---|--:|---|--:|--:|--:|--:|\n");
        }
        let mut sorted = figures.clone();
        // Times before what else is known; works in the order in which they came up, each by size, netloom first.
        let place = |figure: &Figure| {
            let besides = figure.work.starts_with("processor time") || figure.unit != "s";
            (besides, figures.iter().position(|other| other.work == figure.work))
        };
        sorted.sort_by_key(|figure| (place(figure), figure.n, !figure.who.starts_with("netloom")));
        for figure in sorted {
            row(&mut text, store, figure)?;
        }
        text.push_str(&growth(&figures, part));
        let [before, after] = occasion.load;
        writeln!(
            text,
            "\n{}, {}; load of the machine {before:.1} before and {after:.1} after; {} runs.",
            occasion.date,
            occasion.commit,
            figures.iter().map(|figure| figure.values.len()).max().unwrap_or(0)
        )?;
        for why in &occasion.missing {
            writeln!(text, "Not measured: {}.", why.replace('\n', "; "))?;
        }
    }
    Ok(text)
}

/// How the time for each object grows from the smallest size to the largest: 1 is linear.
fn growth(figures: &[&Figure], part: &str) -> String {
    let work = match part {
        "fabric" => "up",
        "teardown" => "down until gone",
        "small" => "validate",
        _ => return String::new(),
    };
    let mut grown = Vec::new();
    for who in ["netloom", "raw netlink", "ip -batch"] {
        let sizes = figures.iter().filter(|f| f.work == work && f.who == who && f.n >= 100);
        let small = sizes.clone().min_by_key(|f| f.n);
        let large = sizes.max_by_key(|f| f.n);
        let (Some(small), Some(large)) = (small, large) else { continue };
        if small.n < large.n {
            #[allow(clippy::cast_precision_loss)] // sizes are small
            let factor = large.median() / small.median() * small.n as f64 / large.n as f64;
            grown.push(format!("{who} {factor:.2} times (N={} against N={})", large.n, small.n));
        }
    }
    if grown.is_empty() {
        return String::new();
    }
    format!(
        "\nTime for each object, of `{work}`, at the largest size against the smallest: {}.\n",
        grown.join(", ")
    )
}

/// A figure; and for one of netloom's, a row for each other that it is compared with and that has no row of its own.
fn row(text: &mut String, store: &Store, figure: &Figure) -> Result<()> {
    let own = figure.who.starts_with("netloom");
    let n = if figure.n == 0 { String::new() } else { figure.n.to_string() };
    let digits = |value: f64| digits(value, &figure.unit);
    write!(
        text,
        "| {} | {n} | {} | {} {} | {} – {} |",
        figure.work,
        figure.who,
        digits(figure.median()),
        figure.unit,
        digits(figure.min()),
        digits(figure.max())
    )?;
    if own {
        // Nobody may be held up for longer at any time; the rest is about what is usual.
        let value = if figure.part == "held" { figure.max() } else { figure.median() };
        let limit = wanted(figure, "").map(|limit| bound(limit, value, &figure.unit));
        writeln!(text, " | {} |", limit.unwrap_or_default())?;
        for other in compared(store, figure).iter().filter(|other| other.work != figure.work) {
            let (times, limit) = ratio(figure, other);
            let limit = limit.unwrap_or_default();
            writeln!(text, "| &emsp; beside {} | | | | | {times} | {limit} |", name_of(other))?;
        }
    } else {
        writeln!(text, " {} |", beside(store, figure))?;
    }
    Ok(())
}

/// Two cells for a figure of somebody else's: what netloom takes of it, in each of its own ways, and the bound on that.
fn beside(store: &Store, other: &Figure) -> String {
    let mut cells = [Vec::new(), Vec::new()];
    for own in &store.figures {
        let same =
            own.part == other.part && own.work == other.work && own.n == other.n && own.unit == other.unit;
        let Some(way) = own.who.strip_prefix("netloom").filter(|_| same) else { continue };
        let (times, limit) = ratio(own, other);
        cells[0].push(times + way);
        cells[1].extend(limit);
    }
    cells[1].dedup();
    cells.map(|cell| cell.join("; ")).join(" | ")
}

/// How many times what the other takes: the median of the rounds' own ratios, where both had a turn in each, since load that
/// comes and goes falls on both of a round.
fn times(netloom: &Figure, other: &Figure) -> f64 {
    if netloom.values.len() != other.values.len() {
        return netloom.median() / other.median();
    }
    let rounds = netloom.values.iter().zip(&other.values);
    median(&rounds.map(|(own, other)| own / other).collect::<Vec<_>>())
}

/// The ratio, and the bound on it where there is one.
fn ratio(netloom: &Figure, other: &Figure) -> (String, Option<String>) {
    let times = times(netloom, other);
    let limit = wanted(netloom, name_of(other)).map(|limit| bound(limit, times, "x"));
    (format!("{}x", digits(times, "x")), limit)
}

fn bound(limit: Limit, value: f64, unit: &str) -> String {
    let (Limit::Times(most) | Limit::Value(most)) = limit;
    let unit = if matches!(limit, Limit::Times(_)) { "x".to_owned() } else { format!(" {unit}") };
    let verdict = if value <= most { "✓" } else { "✗" };
    format!("≤ {}{unit} {verdict}", trimmed(most))
}

fn trimmed(value: f64) -> String {
    format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// As many digits as mean something.
fn digits(value: f64, unit: &str) -> String {
    match (unit, value) {
        ("MB" | "", _) | (_, 100.0..) => format!("{value:.0}"),
        (_, 10.0..) => format!("{value:.1}"),
        (_, 1.0..) => format!("{value:.2}"),
        (_, 0.1..) => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}
