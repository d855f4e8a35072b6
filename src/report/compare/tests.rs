use super::*;
use crate::compare::{Probe, Property};
use crate::probe::Verdict;

fn probe(verdict: Verdict) -> Probe {
    Probe {
        from: "a".into(),
        to: "lan".into(),
        service: "tcp/7".into(),
        through: None,
        family: Some(4),
        address: Some([192, 0, 2, 20].into()),
        verdict,
        detail: if verdict == Verdict::Reachable { "answered by lan" } else { "timed out <&\">" }.into(),
        control: (verdict == Verdict::Blocked).then(|| "lan itself answers".into()),
        rtt_us: (verdict == Verdict::Reachable).then_some(1234),
    }
}

fn cell(property: Property, promised: &str, measured: &str) -> Cell {
    let agreement = match measured {
        "unknown" => Agreement::Unknown,
        measured if measured == promised => Agreement::Equal,
        _ => Agreement::Differs,
    };
    let verdict = match measured {
        "unknown" => Verdict::Inconclusive,
        "block" | "no" | "none" => Verdict::Blocked,
        _ => Verdict::Reachable,
    };
    Cell {
        property,
        promised: promised.into(),
        inferred: property == Property::G2g,
        measured: measured.into(),
        agreement,
        why: (agreement == Agreement::Unknown).then(|| "a -> lan tcp/7: no <socket>".into()),
        probes: vec![probe(verdict); 2],
    }
}

pub(super) fn row(construct: &str, state: Option<&str>, cells: &[(Property, &str, &str)]) -> Row {
    Row {
        construct: construct.into(),
        alias: String::new(),
        state: state.map(Into::into),
        guests: "namespace".into(),
        note: "One | note & more.".into(),
        source: "a manual".into(),
        first_look: None,
        outcome: Outcome::Measured,
        cells: cells
            .iter()
            .map(|(property, promised, measured)| cell(*property, promised, measured))
            .collect(),
        speed: Vec::new(),
        seconds: 1.5,
    }
}

/// Everything that a comparison can have in it.
pub(super) fn some() -> Comparison {
    use Property::{Dhcp, G2g, G2h, G2l, H2g, HostAddress, L2g, Loopback};
    let good = [
        (G2h, "pass", "pass"),
        (H2g, "forward", "forward"),
        (G2g, "block", "block"),
        (G2l, "pass", "pass"),
        (L2g, "forward", "forward"),
        (Dhcp, "server", "server"),
        (HostAddress, "no", "no"),
        (Loopback, "yes", "yes"),
    ];
    let bad = [
        (G2h, "pass", "pass"),
        (H2g, "pass", "unknown"),
        (G2g, "pass", "pass"),
        (G2l, "block", "pass"),
        (L2g, "block", "mixed"),
        (Dhcp, "server", "none"),
        (HostAddress, "yes", "yes"),
    ];
    let mut lacking = row("esxi/port-group-trunk", None, &[]);
    lacking.outcome = Outcome::Lacking("needs VLANs: not measured on this kernel".into());
    let mut failed = row("esxi/internal", None, &[]);
    failed.outcome = Outcome::Failed("the kernel refused <it>".into());
    Comparison {
        guests: "namespace".into(),
        rows: vec![
            row("virtualbox/nat", None, &good),
            row("proxmox/sdn-simple", Some("with SNAT"), &good[..7]),
            row("proxmox/sdn-simple", Some("without SNAT, and a long name"), &bad),
            lacking,
            failed,
        ],
        seconds: 2.0,
    }
}

#[test]
fn the_matrix_is_readable_in_a_hundred_columns() {
    let text = text(&some(), false);
    let expected = "\
construct                 g→host   host→g   g↔g      g→LAN    LAN→g    DHCP     host IP  loopback

virtualbox
  nat                     pass     forward  block*   pass     forward  server   no       yes

proxmox
  sdn-simple
    with SNAT             pass     forward  block*   pass     forward  server   no       ·
    without SNAT, and a long name
                          pass     ?        pass*    pass!    mixed!   none!    yes      ·

esxi
  port-group-trunk        needs VLANs: not measured on this kernel
  internal                not measured, see below

pass passes  forward only through a port forward  block does not pass, proven  ? nothing proven
* the system does not document it: netloom's reading  ! not as promised  · not promised

DIFFERS proxmox/sdn-simple · without SNAT, and a long name: host → guest: promised pass, measured unknown \
(a -> lan tcp/7: no <socket>)
DIFFERS proxmox/sdn-simple · without SNAT, and a long name: guest → LAN: promised block, measured pass
DIFFERS proxmox/sdn-simple · without SNAT, and a long name: LAN → guest: promised block, measured mixed
DIFFERS proxmox/sdn-simple · without SNAT, and a long name: DHCP: promised server, measured none
DIFFERS esxi/internal: not measured: the kernel refused <it>

4 constructs, 5 rows, 22 cells, 3 differ, 1 unknown, 1 row not measured, 1 row not for this kernel; 44 probes in 2.0 s (22/s)
";
    assert_eq!(text, expected);
    let matrix = text.lines().take_while(|line| !line.starts_with("DIFFERS"));
    assert!(matrix.into_iter().all(|line| line.chars().count() <= 100), "{text}");
    assert!(super::text(&some(), true).contains("\u{1b}[31mpass!\u{1b}[0m"));
}

#[test]
fn the_markdown_is_a_table_for_each_system() {
    let text = markdown(&some());
    assert!(
        text.contains("| nat | pass | forward | block\\* | pass | forward | server | no | yes |"),
        "{text}"
    );
    assert!(
        text.contains(
            "| sdn-simple · without SNAT, and a long name | pass | ? | pass\\* | **pass!** | **mixed!** | **none!** | yes |  |"
        ),
        "{text}"
    );
    assert!(text.contains("| port-group-trunk | _needs VLANs: not measured on this kernel_ |  |"), "{text}");
    assert!(text.contains("- esxi/internal: not measured: the kernel refused \\<it\\>"), "{text}");
    for table in text.split("\n\n").filter(|part| part.starts_with('|')) {
        assert!(
            table.trim_end().lines().all(|line| line.replace("\\|", "").matches('|').count() == 10),
            "{table}"
        );
    }
}

/// Elements that need no end in HTML.
const VOID: [&str; 2] = ["meta", "br"];

/// Every tag ends, and nothing is fetched from anywhere.
#[track_caller]
pub(super) fn assert_stands_alone(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let body = page.split_once("</style>").unwrap().1;
    for tag in body.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').unwrap_or_else(|| panic!("a tag does not end: {tag}"));
        assert!(!text.contains('>'), "a bare >: {text}");
        let name = tag.trim_start_matches('/').split(' ').next().unwrap();
        match tag.starts_with('/') {
            true => assert_eq!(open.pop(), (!matches!(name, "head" | "html")).then_some(name)),
            false if !VOID.contains(&name) => open.push(name),
            false => {}
        }
    }
    assert!(open.is_empty(), "{open:?}");
    for foreign in ["<script", "http:", "https:", "url(", "@import", "src="] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn the_page_is_well_formed_and_stands_alone() {
    let page = html(&some());
    assert_stands_alone(&page);
    let answered = "<tr><td>a → lan</td><td>tcp/7 v4</td><td>192.0.2.20</td><td class=\"good\">reachable</td>\
                    <td>answered by lan, 1.23 ms</td></tr>";
    assert!(page.contains(answered), "{page}");
    assert!(page.contains("timed out &lt;&amp;&quot;&gt;; control: lan itself answers"), "{page}");
    assert_eq!(page.matches("<td class=\"bad\"><details").count(), 3);
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("position: sticky"));
    assert!(page.contains("max-width: 60rem"), "a narrow window has rules of its own");
}

#[test]
fn the_exit_code_says_the_worst() {
    let mut all = some();
    assert_eq!(all.exit_code(), 1);
    all.rows.retain(|row| !matches!(row.outcome, Outcome::Failed(_)));
    assert_eq!(all.exit_code(), 1);
    all.rows.retain(|row| row.cells.iter().all(|cell| cell.agreement == Agreement::Equal));
    assert_eq!(all.exit_code(), 3);
    all.rows.retain(|row| row.outcome == Outcome::Measured);
    assert_eq!(all.exit_code(), 0);
}

#[test]
fn json_comes_back_as_it_was() {
    let text = serde_json::to_string(&some()).unwrap();
    assert_eq!(serde_json::from_str::<Comparison>(&text).unwrap(), some());
}
