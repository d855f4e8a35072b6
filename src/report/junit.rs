//! JUnit's XML, as CI servers read it.

use std::time::Duration;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

use super::matrix::{title, word};
use crate::error::{Context, Result};
use crate::probe::{Measured, Verdict};
use crate::topology::ExpectedVerdict;

/// A JUnit document: one test case for each measurement, that is for each expectation and IP family. What is not as
/// expected is a failure; what proves nothing is an error.
///
/// # Errors
/// When the document cannot be written.
pub fn junit(lab: &str, measured: &[Measured], duration: Duration) -> Result<String> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    write(&mut writer, lab, measured, duration).context(|| "cannot write the JUnit report".into())?;
    let mut text =
        String::from_utf8(writer.into_inner()).context(|| "cannot write the JUnit report".into())?;
    text.push('\n');
    Ok(text)
}

fn write(
    writer: &mut Writer<Vec<u8>>,
    lab: &str,
    measured: &[Measured],
    duration: Duration,
) -> std::io::Result<()> {
    let doubtful = |one: &&Measured| one.verdict == Verdict::Inconclusive;
    let errors = measured.iter().filter(doubtful).count();
    let failures = measured.iter().filter(|one| !one.ok).count() - errors;
    let (tests, errors, failures) = (measured.len().to_string(), errors.to_string(), failures.to_string());
    let time = format!("{:.3}", duration.as_secs_f64());
    let sums = |start: BytesStart<'static>| {
        start.with_attributes([
            ("tests", tests.as_str()),
            ("failures", failures.as_str()),
            ("errors", errors.as_str()),
            ("skipped", "0"),
            ("time", time.as_str()),
        ])
    };
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let mut suites = sums(BytesStart::new("testsuites"));
    suites.push_attribute(("name", "netloom"));
    writer.write_event(Event::Start(suites))?;
    let mut suite = sums(BytesStart::new("testsuite"));
    suite.push_attribute(("name", lab));
    writer.write_event(Event::Start(suite))?;
    for one in measured {
        case(writer, lab, one)?;
    }
    writer.write_event(Event::End(BytesEnd::new("testsuite")))?;
    writer.write_event(Event::End(BytesEnd::new("testsuites")))?;
    Ok(())
}

fn case(writer: &mut Writer<Vec<u8>>, lab: &str, one: &Measured) -> std::io::Result<()> {
    let wanted = match one.expected {
        ExpectedVerdict::Reachable => "reachable",
        ExpectedVerdict::Blocked => "blocked",
    };
    // Lines make names unique: a file may expect the same twice.
    let name = clean(&format!("{} is {wanted} (line {})", title(one), one.line));
    let time =
        one.rtt_us.map_or_else(|| "0".to_owned(), |us| format!("{}.{:06}", us / 1_000_000, us % 1_000_000));
    let start = BytesStart::new("testcase").with_attributes([
        ("classname", lab),
        ("name", name.as_str()),
        ("time", time.as_str()),
    ]);
    if one.ok {
        return writer.write_event(Event::Empty(start));
    }
    writer.write_event(Event::Start(start))?;
    let (element, kind) = if one.verdict == Verdict::Inconclusive {
        ("error", "inconclusive")
    } else {
        ("failure", "expectation")
    };
    let message = clean(&format!("expected {wanted}, is {}: {}", word(one.verdict), one.detail));
    let fault = BytesStart::new(element).with_attributes([("type", kind), ("message", message.as_str())]);
    writer.write_event(Event::Start(fault))?;
    let address = one.address.map_or_else(|| "none".to_owned(), |address| address.to_string());
    let control = one.control.as_deref().unwrap_or("none");
    let body = clean(&format!("address: {address}\ncontrol: {control}\nline: {}", one.line));
    writer.write_event(Event::Text(BytesText::new(&body)))?;
    writer.write_event(Event::End(BytesEnd::new(element)))?;
    writer.write_event(Event::End(BytesEnd::new("testcase")))
}

/// Without the control characters that XML 1.0 forbids even escaped; a stranger's answer may hold any.
fn clean(text: &str) -> String {
    let fine =
        |c: &char| matches!(c, '\t' | '\n' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars().filter(fine).collect()
}

#[cfg(test)]
mod tests {
    use quick_xml::Reader;

    use super::super::tests::some;
    use super::*;

    /// Elements with their attributes, as an independent reader finds them.
    fn elements(text: &str) -> Vec<(String, Vec<(String, String)>)> {
        let mut reader = Reader::from_str(text);
        reader.config_mut().check_end_names = true;
        let mut found = Vec::new();
        loop {
            match reader.read_event().unwrap() {
                Event::Eof => return found,
                Event::Start(start) | Event::Empty(start) => {
                    let attributes = start.attributes().map(|attribute| {
                        let attribute = attribute.unwrap();
                        let key = attribute.key.as_ref().to_owned();
                        (
                            key,
                            attribute
                                .normalized_value(quick_xml::XmlVersion::Implicit1_0)
                                .unwrap()
                                .into_owned(),
                        )
                    });
                    found.push((start.name().as_ref().to_owned(), attributes.collect()));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn the_document_parses_and_counts_right() {
        let mut list = some();
        list[2].detail.push('\u{1}');
        let text = junit("lab", &list, Duration::from_millis(1500)).unwrap();
        let found = elements(&text);
        let count = |name: &str| found.iter().filter(|(element, _)| element == name).count();
        assert_eq!([count("testcase"), count("failure"), count("error")], [5, 2, 1], "{text}");
        let suite = &found.iter().find(|(element, _)| element == "testsuite").unwrap().1;
        let attribute = |key: &str| suite.iter().find(|(k, _)| k == key).unwrap().1.as_str();
        assert_eq!(["tests", "failures", "errors", "time"].map(attribute), ["5", "2", "1", "1.500"]);
        let message = &found.iter().find(|(element, _)| element == "failure").unwrap().1[1].1;
        assert_eq!(message, "expected reachable, is blocked: timed out <& \"more\">");
    }
}
