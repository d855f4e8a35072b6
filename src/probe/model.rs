//! What probing needs to know of a lab, and what it finds.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::resource::Place;
use crate::topology::{Endpoint, ExpectedVerdict, Service};

/// Where probes can be started.
#[derive(Clone)]
pub enum Vantage {
    /// In a network namespace, with sockets of this very process.
    Netns(Place),
    /// By commands run inside a guest.
    Exec(Arc<dyn Exec>),
}

/// Runs commands inside a guest (through the guest agent, for a VM).
#[async_trait]
pub trait Exec: Send + Sync {
    /// Runs `argv` to its end, at most for `timeout`.
    ///
    /// # Errors
    /// When the command cannot be run or does not end in time; a command that fails is no error.
    async fn exec(&self, argv: &[String], timeout: Duration) -> Result<Executed>;
}

/// How a command inside a guest ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Executed {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A lab's endpoints as they are right now.
#[async_trait]
pub trait Endpoints: Send + Sync {
    /// Where probes from this endpoint start; `None` for an endpoint that nothing can be started on (a bare address,
    /// or `outside` on a real host).
    ///
    /// # Errors
    /// When the endpoint should have one but is not there: its error says why, and becomes an inconclusive verdict.
    async fn vantage(&self, endpoint: &Endpoint) -> Result<Option<Vantage>>;

    /// The endpoint's present addresses, leases included, without loopback and IPv6 link-local; only those on network
    /// `via` (`wan`, or `core.lan` on a VLAN) when that is given. Empty when it has none (yet).
    ///
    /// # Errors
    /// When the endpoint is not there: its error says why, and becomes an inconclusive verdict.
    async fn addresses(&self, endpoint: &Endpoint, via: Option<&str>) -> Result<Vec<IpAddr>>;

    /// Has these endpoints forget whom they have heard of on their links, where they can: the kernel can remember only so
    /// many for all of them together.
    ///
    /// # Errors
    /// When one of them cannot be entered.
    async fn forget_neighbours(&self, _endpoints: &BTreeSet<Endpoint>) -> Result<()> {
        Ok(())
    }

    /// Who must answer, by the first word of the line, where the file alone does not tell.
    fn answerer(&self, _to: &Endpoint, _via: Option<&str>, _service: Service) -> Option<String> {
        None
    }

    /// Whom to ask for what, to show that a service which gave no answer at `address` could have: for an address that is
    /// not the endpoint's own, such as that of a port forward. `None` where it is the endpoint itself.
    fn proof(
        &self,
        _to: &Endpoint,
        _via: Option<&str>,
        _address: IpAddr,
        _service: Service,
    ) -> Option<(Endpoint, IpAddr, Service)> {
        None
    }
}

/// How patiently things are measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a probe that should be answered is repeated before it counts as unanswered.
    pub patience: Duration,
    /// How long a probe that should not be answered waits for an answer; it is sent three times in that time.
    pub wait: Duration,
    /// Probes under way at a time; most only wait.
    pub concurrency: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { patience: Duration::from_secs(5), wait: Duration::from_millis(1500), concurrency: 128 }
    }
}

/// What a measurement shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Answered.
    Reachable,
    /// Not answered, although the same service answered a control probe and the source is alive.
    Blocked,
    /// Nothing is proven: the server, the source or an address is missing.
    Inconclusive,
}

/// One expectation, measured over one IP family. Field names are stable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Position of the expectation in the file, from 0. One expectation is measured once for each family.
    pub index: usize,
    /// Line of the expectation in the file, from 1.
    pub line: usize,
    /// Where the probe started.
    pub from: String,
    /// Where it went.
    pub to: String,
    /// What was probed: `icmp`, `tcp/80`.
    #[serde(with = "service_text")]
    pub service: Service,
    /// Network whose address of the target was used, when the file says.
    pub via: Option<String>,
    /// 4 or 6; `None` when neither end has an address.
    pub family: Option<u8>,
    /// Address probed.
    pub address: Option<IpAddr>,
    /// What the file expects.
    pub expected: ExpectedVerdict,
    /// What came out.
    pub verdict: Verdict,
    /// Whether that is what was expected.
    pub ok: bool,
    /// What happened, for people: `answered by lab/web`, `timed out`, `rejected by 10.0.0.1`.
    pub detail: String,
    /// Time from probe to answer in microseconds.
    pub rtt_us: Option<u64>,
    /// For an unanswered probe: what the control probes showed.
    pub control: Option<String>,
}

mod service_text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::topology::{Protocol, Service};

    pub(super) fn serialize<S: Serializer>(service: &Service, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(service)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Service, D::Error> {
        let text = String::deserialize(from)?;
        let parsed = match text.split_once('/') {
            None if text == "icmp" => Some(Service { protocol: Protocol::Icmp, port: 0 }),
            Some(("tcp", port)) => port.parse().ok().map(|port| Service { protocol: Protocol::Tcp, port }),
            Some(("udp", port)) => port.parse().ok().map(|port| Service { protocol: Protocol::Udp, port }),
            _ => None,
        };
        parsed.ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a service")))
    }
}
