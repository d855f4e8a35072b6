//! The page: the matrix with every probe behind its cell. One file, no script, nothing fetched.

use std::fmt::Write as _;

use super::{agreement, by_system, chart, complaints, mark, short, summary};
use crate::compare::{Agreement, Cell, Comparison, Outcome, Probe, Property, Row};
use crate::probe::Verdict;

const STYLE: &str = include_str!("style.css");

/// How each column is measured, in the page's own words.
const METHOD: [(&str, &str); 8] = [
    (
        "The stage",
        "Each construct is built in a sandbox: a private network namespace that plays the host, with a LAN (a router that \
         hands out addresses, a neighbour) and a host beyond that router. Two guests, a and b, are plugged into one network \
         of the construct, with nothing configured but what the construct needs.",
    ),
    (
        "The probes",
        "Every direction is asked by ICMP echo, TCP and UDP, over IPv4 and IPv6 where both ends have it, from each guest and \
         to each guest; towards the LAN both the neighbour and the host beyond the router. A TCP or UDP answer counts only \
         when it is a line that names who answers.",
    ),
    (
        "block",
        "A probe that is not answered is sent three times in 1.5 seconds. It counts as blocked only when a control in the \
         same run shows that it could have been answered: the same service at the same address answers its owner or somebody \
         else, and the source reaches itself. Guests that have no default route get one first, by the host's address or by \
         the link itself, and the LAN's router knows the way to the guests' subnet: so it is the network that refuses, not a \
         lack of routes.",
    ),
    (
        "forward",
        "Nothing is answered at the guest's own address, and the same guest answers through a forwarded TCP and UDP port of \
         the host (or of the network's own router).",
    ),
    (
        "guest → host",
        "To the host's address on the guests' subnet, if it holds one; else to the address that the LAN knows it by.",
    ),
    (
        "DHCP",
        "Each guest's link is asked for an offer, none of which is taken. `server` is the construct's own, `lan` the LAN's \
         router. When nobody offers, the same question is asked on the LAN, where somebody does.",
    ),
    (
        "host address",
        "Whether the guests' neighbour resolution (ARP, NDP) finds an address of the host in their subnet, whatever is \
         filtered above it.",
    ),
    (
        "loopback",
        "A service that listens on the host's 127.0.0.1 alone is asked for at the gateway's address.",
    ),
];

/// The whole page.
#[must_use]
pub fn html(comparison: &Comparison) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Networking modes, measured</title>\n<style>\n{STYLE}{}</style>\n</head>\n<body>\n\
         <h1>Networking modes, measured</h1>\n<p class=\"sum\">{}</p>\n<p>Guests: {}. Click a cell to see how it was \
         measured, a name to see where its promise comes from.</p>\n",
        chart::STYLE,
        escape(&summary(comparison)),
        escape(&comparison.guests)
    );
    let agreement = agreement(comparison);
    if let Some(agreement) = &agreement {
        let _ = writeln!(out, "<p>{}</p>", escape(agreement));
    }
    legend(&mut out);
    for one in comparison.by_kind() {
        if agreement.is_some() {
            let _ = writeln!(out, "<h2>Guests: {}</h2>", escape(&one.guests));
        }
        matrix(&mut out, &one);
    }
    out.push_str(&chart::section(comparison));
    out.push_str("<h2>How it was measured</h2>\n<dl>\n");
    for (term, text) in METHOD {
        let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(term), escape(text));
    }
    out.push_str("</dl>\n</body>\n</html>\n");
    out
}

fn matrix(out: &mut String, comparison: &Comparison) {
    let bad: Vec<String> = comparison.rows.iter().flat_map(complaints).collect();
    if !bad.is_empty() {
        out.push_str("<h2>Not as promised</h2>\n<ul class=\"bad\">\n");
        for sentence in bad {
            let _ = writeln!(out, "<li>{}</li>", escape(&sentence));
        }
        out.push_str("</ul>\n");
    }
    out.push_str("<table class=\"matrix\">\n<thead><tr><th>construct</th>");
    for property in Property::ALL {
        let _ = write!(out, "<th>{}</th>", escape(property.words()));
    }
    out.push_str("</tr></thead>\n");
    for (system, rows) in by_system(comparison) {
        let _ = writeln!(
            out,
            "<tbody>\n<tr class=\"system\"><th colspan=\"{}\">{}</th></tr>",
            Property::ALL.len() + 1,
            escape(system)
        );
        for row in rows {
            line(out, row);
        }
        out.push_str("</tbody>\n");
    }
    out.push_str("</table>\n");
}

fn legend(out: &mut String) {
    out.push_str("<p class=\"legend\">");
    for (class, word, meaning) in [
        ("good", "pass", "passes"),
        ("good", "forward", "only through a port forward"),
        ("none", "block", "does not pass, proven"),
        ("doubt", "?", "nothing proven"),
        ("bad", "!", "not as promised"),
    ] {
        let _ = write!(out, "<span class=\"{class}\">{word}</span> {meaning} ");
    }
    out.push_str("<span>*</span> the system does not document it: netloom's reading</p>\n");
}

fn line(out: &mut String, row: &Row) {
    let state = row.state.as_ref().map(|state| format!("<br><small>{}</small>", escape(state)));
    let alias = if row.alias.is_empty() {
        String::new()
    } else {
        format!("<p>Also called {}.</p>", escape(&row.alias))
    };
    let note = if row.note.is_empty() { String::new() } else { format!("<p>{}</p>", escape(&row.note)) };
    let first = row.first_look.as_ref().map(|why| {
        let why = escape(why);
        format!("<p>A second look, with nothing else at work; the first saw: {why}.</p>")
    });
    let first = first.unwrap_or_default();
    let _ = write!(
        out,
        "<tr><th class=\"name\"><details name=\"cell\"><summary>{}{}</summary><div><h3>{}</h3>{alias}{note}{first}\
         <p>Source: {}.</p></div></details></th>",
        escape(short(row)),
        state.unwrap_or_default(),
        escape(&row.construct),
        escape(&row.source)
    );
    let columns = Property::ALL.len();
    match &row.outcome {
        Outcome::Measured => {
            for property in Property::ALL {
                match row.cell(property) {
                    Some(cell) => one(out, row, cell),
                    None => out.push_str("<td class=\"none\">·</td>"),
                }
            }
        }
        Outcome::Lacking(why) => {
            let _ = write!(out, "<td class=\"doubt\" colspan=\"{columns}\">{}</td>", escape(why));
        }
        Outcome::Failed(why) => {
            let _ = write!(out, "<td class=\"bad\" colspan=\"{columns}\">not measured: {}</td>", escape(why));
        }
    }
    out.push_str("</tr>\n");
}

fn one(out: &mut String, row: &Row, cell: &Cell) {
    let class = match (cell.agreement, cell.measured.as_str()) {
        (Agreement::Differs, _) => "bad",
        (Agreement::Unknown, _) => "doubt",
        (_, "block" | "none" | "no") => "none",
        _ => "good",
    };
    let inferred = if cell.inferred { " (netloom's reading: the system does not document it)" } else { "" };
    let why = cell.why.as_ref().map(|why| format!("<p>{}</p>", escape(why))).unwrap_or_default();
    let _ = write!(
        out,
        "<td class=\"{class}\"><details name=\"cell\"><summary>{}</summary><div><h3>{}: {}</h3>\
         <p>Promised: <b>{}</b>{inferred}. Measured: <b>{}</b>, by {} probes.</p>{why}<table>",
        escape(&mark(cell)),
        escape(&row.name()),
        escape(cell.property.words()),
        escape(&cell.promised),
        escape(&cell.measured),
        cell.probes.len()
    );
    for asked in &cell.probes {
        probe(out, asked);
    }
    out.push_str("</table></div></details></td>");
}

fn probe(out: &mut String, probe: &Probe) {
    let family = probe.family.map(|family| format!(" v{family}")).unwrap_or_default();
    let address = probe.address.map(|address| address.to_string()).unwrap_or_default();
    let through = probe.through.as_ref().map(|through| format!(" ({through})")).unwrap_or_default();
    let (class, word) = match probe.verdict {
        Verdict::Reachable => ("good", "reachable"),
        Verdict::Blocked => ("none", "blocked"),
        Verdict::Inconclusive => ("doubt", "inconclusive"),
    };
    // Microseconds as milliseconds with two digits.
    let rtt = probe.rtt_us.map(|us| format!(", {}.{:02} ms", us / 1000, us % 1000 / 10)).unwrap_or_default();
    let control = probe.control.as_ref().map(|control| format!("; control: {control}")).unwrap_or_default();
    let _ = write!(
        out,
        "<tr><td>{} → {}</td><td>{}{family}{}</td><td>{}</td><td class=\"{class}\">{word}</td><td>{}</td></tr>",
        escape(&probe.from),
        escape(&probe.to),
        escape(&probe.service),
        escape(&through),
        escape(&address),
        escape(&format!("{}{rtt}{control}", probe.detail))
    );
}

/// Text that HTML takes for nothing but text, also within quotes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
