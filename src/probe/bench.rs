//! Asks questions from endpoints, a bounded number at a time, and remembers the answers to control questions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};

use super::model::{Endpoints, Options, Vantage};
use super::outcome::{Outcome, Patience, Question, Silence};
use super::targets::Trial;
use super::{remote, socket};
use crate::topology::{Endpoint, Protocol, Service, Topology};

/// How long a control probe, which should be answered at once, is repeated.
const CONTROL: Duration = Duration::from_secs(5);

type Slot = Arc<OnceCell<Outcome>>;

/// What probing works with.
pub(super) struct Bench<'a> {
    pub(super) topology: &'a Topology,
    pub(super) endpoints: &'a dyn Endpoints,
    pub(super) options: &'a Options,
    room: Semaphore,
    /// Guests that are asked through their agents.
    guests: Mutex<BTreeMap<Endpoint, Arc<remote::Room>>>,
    controls: Mutex<BTreeMap<(Endpoint, Question), Slot>>,
    known: Mutex<Known>,
}

/// What the probes of this run have shown.
#[derive(Default)]
struct Known {
    /// Who got an answer to what.
    answered: BTreeMap<(IpAddr, Service), Endpoint>,
    /// Endpoints that got an answer over a family, `true` for IPv4.
    alive: BTreeSet<(Endpoint, bool)>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(topology: &'a Topology, endpoints: &'a dyn Endpoints, options: &'a Options) -> Self {
        Self {
            topology,
            endpoints,
            options,
            room: Semaphore::new(options.concurrency.max(1)),
            guests: Mutex::default(),
            controls: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// Asks from an endpoint.
    pub(super) async fn ask(&self, from: &Endpoint, question: Question, patience: Patience) -> Outcome {
        let vantage = match self.endpoints.vantage(from).await {
            Ok(Some(vantage)) => vantage,
            Ok(None) => {
                return Outcome::Silent(Silence::Unable(format!("no probe can be started from {from}")));
            }
            Err(e) => return Outcome::Silent(Silence::Unable(e.to_string())),
        };
        match vantage {
            Vantage::Netns(place) => {
                let _permit = self.room.acquire().await;
                socket::ask(&place, question, patience).await
            }
            Vantage::Exec(guest) => {
                let room = {
                    let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
                    Arc::clone(guests.entry(from.clone()).or_default())
                };
                remote::ask(&room, &guest, question, patience).await
            }
        }
    }

    /// Asks an endpoint itself for one of its own addresses; each such question once in a run.
    pub(super) async fn ask_itself(&self, endpoint: &Endpoint, question: Question) -> Outcome {
        let slot = {
            let mut controls = self.controls.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(controls.entry((endpoint.clone(), question)).or_default())
        };
        let patience = Patience { whole: CONTROL, insist: true };
        slot.get_or_init(|| self.ask(endpoint, question, patience)).await.clone()
    }

    /// Notes what the trials showed.
    pub(super) fn learn(&self, trials: &[Trial]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for trial in trials {
            for (question, _) in trial.outcomes.iter().filter(|(_, outcome)| trial.right_answer(outcome)) {
                known.answered.insert((question.address, question.service), trial.wanted.from.clone());
                known.alive.insert((trial.wanted.from.clone(), question.address.is_ipv4()));
            }
        }
    }

    /// Another endpoint that this question was answered to.
    pub(super) fn reached_by(&self, question: Question) -> Option<Endpoint> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.answered.get(&(question.address, question.service)).cloned()
    }

    /// Whether an endpoint can send and receive over the family of `target`: it got an answer in this run, or its own
    /// address answers it.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn alive(&self, endpoint: &Endpoint, target: IpAddr) -> Result<(), String> {
        let family = target.is_ipv4();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.alive.contains(&(endpoint.clone(), family)) {
                return Ok(());
            }
        }
        let own = self.endpoints.addresses(endpoint, None).await.map_err(|e| e.to_string())?;
        let Some(address) = own.into_iter().find(|own| own.is_ipv4() == family) else {
            return Err(format!("{endpoint} has no {} address", family_word(family)));
        };
        let service = Service { protocol: Protocol::Icmp, port: 0 };
        match self.ask_itself(endpoint, Question { address, service, line: false }).await {
            Outcome::Answered { .. } => Ok(()),
            Outcome::Silent(why) => Err(format!("{endpoint} does not reach its own {address}: {why}")),
        }
    }
}

/// `IPv4` or `IPv6`.
pub(super) fn family_word(v4: bool) -> &'static str {
    if v4 { "IPv4" } else { "IPv6" }
}
