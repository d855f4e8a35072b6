//! What comparisons with speed look like, and with two kinds of guests.

use quick_xml::events::Event;

use super::tests::{assert_stands_alone, row, some};
use super::*;
use crate::compare::Property;
use crate::compare::speed::{Pair, Rtt, Speed, Throughput};

fn speed(pair: Pair, bits_per_second: u64, median_us: u64) -> Speed {
    Speed {
        pair,
        from: "a".into(),
        to: "b".into(),
        through: (pair == Pair::H2g).then(|| "forward".into()),
        address: Some([10, 0, 2, 15].into()),
        throughput: Some(Throughput {
            bits_per_second,
            bytes: bits_per_second / 8,
            seconds: 1.0,
            retransmits: Some(0),
        }),
        throughput_reason: None,
        rtt: Some(Rtt {
            by: "icmp".into(),
            sent: 30,
            answered: 29,
            min_us: median_us - 1,
            median_us,
            p95_us: median_us * 2,
        }),
        rtt_reason: None,
    }
}

fn lost(pair: Pair) -> Speed {
    let mut speed = speed(pair, 8, 8);
    speed.throughput = None;
    speed.throughput_reason = Some("iperf3: refused <&\">".into());
    speed
}

/// Two constructs with namespaces, and one of them with VMs as well, which differ in a cell.
fn fast() -> Comparison {
    use Property::{G2g, G2h};
    let mut nat = row("virtualbox/nat", None, &[(G2h, "pass", "pass"), (G2g, "block", "block")]);
    let mut simple = row("proxmox/sdn-simple", Some("with <SNAT>"), &[(G2g, "pass", "pass")]);
    let mut vm = row("virtualbox/nat", None, &[(G2h, "pass", "pass"), (G2g, "block", "pass")]);
    nat.speed = vec![speed(Pair::G2h, 9_414_000_000, 45), speed(Pair::H2g, 941_400_000, 1234)];
    simple.speed = vec![lost(Pair::G2g), speed(Pair::G2o, 10_000_000_000, 100)];
    vm.speed = vec![speed(Pair::G2h, 99_960_000, 12_340), lost(Pair::H2g)];
    vm.guests = "vm".into();
    Comparison { guests: "namespace,vm".into(), rows: vec![nat, simple, vm], seconds: 9.0 }
}

#[test]
fn figures_have_three_digits_and_a_unit() {
    let rates = [0, 999, 1000, 9_414_000_000, 10_040_000_000, 99_960_000, 999_600_000, 41_251_000_000];
    let words = rates.map(speed::rate);
    assert_eq!(words, ["0", "999", "1.00k", "9.41G", "10.0G", "100M", "1.00G", "41.3G"]);
    let times = [0, 45, 999, 1000, 1250, 9949, 9950, 12_499, 250_000].map(speed::time);
    assert_eq!(times, ["0µs", "45µs", "999µs", "1.0ms", "1.2ms", "9.9ms", "10ms", "12ms", "250ms"]);
}

#[test]
fn the_table_of_speeds_follows_the_matrix_of_each_kind() {
    let text = text(&fast(), false);
    let expected = "
speed                     g→g         g→host      host→g      g→LAN       LAN→g       g→outside

virtualbox
  nat                     ·           9.41G 45µs  941M 1.2ms  ·           ·           ·

proxmox
  sdn-simple
    with <SNAT>           ? 8µs       ·           ·           ·           ·           10.0G 100µs

TCP throughput in bits of payload per second, and the median round-trip time of the idle network
· the contract does not let it through  ? not measured
NO FIGURE proxmox/sdn-simple · with <SNAT>: guest → guest: no throughput: iperf3: refused <&\">
";
    assert!(text.contains(expected), "{text}");
    assert!(text.starts_with("Guests: namespace\n\nconstruct "), "{text}");
    assert!(text.contains("\nGuests: vm\n\nconstruct "), "{text}");
    assert!(text.contains("  nat                     ·           100M 12ms   ? 8µs       ·"), "{text}");
    assert!(text.ends_with("\nNamespaces and VMs agree in 1 of 2 cells.\n"), "{text}");
    let tables = text.lines().filter(|line| !line.contains("NO FIGURE") && !line.contains("DIFFERS"));
    assert!(tables.into_iter().all(|line| line.chars().count() <= 100), "{text}");
    // Without speed nothing of it is said, nor of kinds.
    let without = super::text(&some(), false);
    assert!(!without.contains("speed") && !without.contains("agree"), "{without}");
}

#[test]
fn the_markdown_has_a_table_of_speeds_for_each_kind() {
    let text = markdown(&fast());
    assert!(text.contains("| virtualbox/nat |  | 9.41G 45µs | 941M 1.2ms |  |  |  |\n"), "{text}");
    assert!(text.contains("| virtualbox/nat |  | 100M 12ms | ? 8µs |  |  |  |\n"), "{text}");
    assert!(text.contains("\n# Guests: vm\n"), "{text}");
    for table in text.split("\n\n").filter(|part| part.starts_with("| construct | guest → guest |")) {
        let counts: Vec<usize> = table.trim_end().lines().map(|line| line.matches('|').count()).collect();
        assert!(counts.iter().all(|count| *count == counts[0]), "{table}");
    }
    assert!(text.contains("no throughput: iperf3: refused \\<&\"\\>"), "{text}");
}

/// The page's drawings, read by an XML parser: elements with their attributes, and all text.
fn drawings(page: &str) -> Vec<Vec<(String, String)>> {
    let parts = page.split("<svg ").skip(1).map(|part| part.split_once("</svg>").unwrap().0);
    let mut out = Vec::new();
    for part in parts {
        let whole = format!("<svg {part}</svg>");
        let mut reader = quick_xml::Reader::from_str(&whole);
        reader.config_mut().check_end_names = true;
        let (mut seen, mut depth) = (Vec::new(), 0);
        loop {
            match reader.read_event().unwrap() {
                Event::Start(element) => {
                    depth += 1;
                    let name = element.name().as_ref().to_owned();
                    let attributes = element.attributes().map(|attribute| {
                        let attribute = attribute.unwrap();
                        let key = attribute.key.as_ref().to_owned();
                        format!("{key}={}", attribute.value)
                    });
                    seen.push((name, attributes.collect::<Vec<_>>().join(" ")));
                }
                Event::End(_) => depth -= 1,
                Event::Text(text) => {
                    seen.push(("#text".into(), text.to_string()));
                }
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(depth, 0, "{whole}");
        out.push(seen);
    }
    out
}

#[test]
fn the_drawings_are_well_formed_and_say_each_figure() {
    let page = html(&fast());
    assert_stands_alone(&page);
    let drawings = drawings(&page);
    assert_eq!(drawings.len(), 2, "throughput and round-trip time");
    let bars = |drawing: &[(String, String)], class: &str| -> Vec<f64> {
        let rects = drawing.iter().filter(|(name, rest)| name == "rect" && rest.contains(class));
        let width = |rest: &str| rest.split("width=").nth(1).unwrap().split(' ').next().unwrap().parse();
        rects.map(|(_, rest)| width(rest).unwrap()).collect()
    };
    // A bar for each figure, known or not.
    assert_eq!(bars(&drawings[0], "kind0").len(), 4);
    assert_eq!(bars(&drawings[0], "kind1").len(), 2);
    let [first, forwarded, none, last] = bars(&drawings[0], "kind0")[..] else { panic!() };
    // 941 M and 9.41 G, between 10 M and 10 G: a third of 96.
    assert!((first - forwarded - 32.0).abs() < 0.15, "{first} {forwarded}");
    assert!(none < 0.1 && last > first && first > forwarded, "{first} {forwarded} {none} {last}");
    let texts = |drawing: &[(String, String)]| -> Vec<String> {
        drawing.iter().filter(|(name, _)| name == "#text").map(|(_, text)| text.clone()).collect()
    };
    for words in ["9.41G ns", "100M vm", "not measured vm", "guest → outside", "virtualbox", "nat"] {
        assert!(texts(&drawings[0]).iter().any(|text| text == words), "{words}: {:?}", texts(&drawings[0]));
    }
    for words in ["45µs ns", "12ms vm", "100µs ns"] {
        assert!(texts(&drawings[1]).iter().any(|text| text == words), "{words}");
    }
    assert!(page.contains("Namespaces and VMs agree in 1 of 2 cells."));
    assert!(page.contains("refused &lt;&amp;&quot;&gt;") && !page.contains("refused <"));
    assert!(!html(&some()).contains("<svg"));
}

#[test]
fn speed_changes_no_exit_code_and_comes_back_from_json() {
    let mut comparison = fast();
    assert_eq!(comparison.exit_code(), 1, "a cell of the VM differs");
    comparison.rows.pop();
    assert_eq!(comparison.exit_code(), 0, "although a figure is missing");
    let text = serde_json::to_string(&comparison).unwrap();
    assert_eq!(serde_json::from_str::<Comparison>(&text).unwrap(), comparison);
}
