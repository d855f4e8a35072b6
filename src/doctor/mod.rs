//! What this host can and cannot do, and the mend for each.
//!
//! Nothing is guessed from versions or configuration where it can be tried: kernel features are tried in a throw-away
//! network namespace ([`probe_kernel`]), the libvirt daemon is asked.

mod finding;
mod host;
mod kernel;
mod network;
mod privilege;
mod programs;
mod virtualisation;

use std::fmt::Write as _;

pub use finding::{Finding, Mend, Status};
pub use kernel::{Trial, probe_kernel};

use host::Host;

/// Hidden verb under which the program tries kernel features: `netloom __probe-kernel`.
pub const PROBE_VERB: &str = "__probe-kernel";

/// Looks at this host. Takes up to a few seconds; changes nothing.
#[must_use]
pub fn examine() -> Vec<Finding> {
    examine_host(&Host::here())
}

fn examine_host(host: &Host) -> Vec<Finding> {
    let mut findings = privilege::examine(host);
    findings.extend(kernel::examine(host));
    findings.extend(virtualisation::examine(host));
    findings.extend(programs::examine(host));
    findings.extend(network::examine(host));
    findings
}

/// Whether something is missing that netloom cannot do without: `doctor` then ends with exit code 3.
#[must_use]
pub fn lacks_something(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.status == Status::Missing)
}

/// The findings for people, each with the mend for this host's distribution family (all three where it is unknown).
#[must_use]
pub fn render(findings: &[Finding], color: bool) -> String {
    let family = Host::here().family();
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for finding in findings {
        let (word, paint) = match finding.status {
            Status::Ok => ("ok     ", "32"),
            Status::Warning => ("warning", "33"),
            Status::Missing => ("MISSING", "31"),
        };
        let word = if color { format!("\x1b[{paint}m{word}\x1b[0m") } else { word.to_owned() };
        let _ = writeln!(out, "{word}  {:width$}  {}", finding.name, finding.detail);
        if finding.status == Status::Ok {
            continue;
        }
        let _ = writeln!(out, "{:9}{:width$}  needed for {}", "", "", finding.needed_for);
        for line in finding.mend.for_family(family) {
            let _ = writeln!(out, "{:9}{:width$}  mend: {line}", "", "");
        }
    }
    let count = |status| findings.iter().filter(|finding| finding.status == status).count();
    let _ = match (count(Status::Missing), count(Status::Warning)) {
        (0, 0) => writeln!(out, "\nThis host can do everything."),
        (0, warnings) => writeln!(out, "\nNothing is missing; {warnings} to look at."),
        (missing, warnings) => writeln!(out, "\n{missing} missing, {warnings} to look at."),
    };
    out
}

#[cfg(test)]
mod tests;
