//! Measures what a lab's file expects: from one endpoint to another, by ICMP, TCP or UDP, over IPv4 and IPv6.
//!
//! What is asked:
//! - With `via`, the target's addresses on that network; else those on networks that both ends are on; else all of
//!   them. One answer makes the target reachable, and it is blocked only when no address answers.
//! - Each family that both ends have is measured by itself, unless the expectation names one. A family that the source
//!   has no route for is left out when another one was measured.
//!
//! What it means:
//! - `reachable`: answered. A guest that serves must answer with its own line.
//! - `blocked`: no answer, while the same service at the same address answered a control probe (from the target itself,
//!   or from another endpoint in this run) and the source is alive.
//! - `inconclusive`: anything else, with the reason.

mod bench;
pub(crate) mod dhcp;
mod icmp;
mod judge;
mod lab;
mod model;
mod outcome;
mod remote;
mod socket;
mod targets;
mod windows;

pub use lab::LabEndpoints;
pub use model::{Endpoints, Exec, Executed, Measured, Options, Vantage, Verdict};

use futures_util::future::join_all;

use crate::error::Result;
use crate::topology::Topology;

/// Measures every expectation of the topology, in the file's order.
///
/// # Errors
/// Only when measuring itself is impossible; a dead endpoint is a verdict ([`Verdict::Inconclusive`]), not an error.
pub async fn evaluate(
    topology: &Topology,
    endpoints: &dyn Endpoints,
    options: &Options,
) -> Result<Vec<Measured>> {
    let bench = bench::Bench::new(topology, endpoints, options);
    let expectations = topology.expect.iter().enumerate();
    let trials = join_all(expectations.map(|(index, wanted)| targets::trials(&bench, index, wanted))).await;
    let mut trials: Vec<targets::Trial> = trials.into_iter().flatten().collect();
    let mut windows = windows::windows(&mut trials, targets::Trial::pair).into_iter().peekable();
    while let Some(mut window) = windows.next() {
        join_all(window.iter_mut().map(|trial| trial.probe(&bench))).await;
        if windows.peek().is_some() {
            endpoints.forget_neighbours(&windows::ends(&window, targets::Trial::pair)).await?;
        }
    }
    targets::drop_families_without_route(&mut trials);
    // Controls come second: what was answered so far saves many of them.
    bench.learn(&trials);
    Ok(join_all(trials.into_iter().map(|trial| judge::judge(&bench, trial))).await)
}
