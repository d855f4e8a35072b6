//! From what was met to a verdict; what was not answered only counts after control probes.

use std::net::IpAddr;

use super::bench::Bench;
use super::model::{Measured, Verdict};
use super::outcome::{Outcome, Question, Silence};
use super::targets::{Trial, forwarded_to};
use crate::topology::{Endpoint, ExpectedVerdict};

/// What a trial shows.
struct Finding {
    verdict: Verdict,
    address: Option<IpAddr>,
    detail: String,
    rtt_us: Option<u64>,
    control: Option<String>,
}

/// Judges one trial.
pub(super) async fn judge(bench: &Bench<'_>, trial: Trial<'_>) -> Measured {
    let Finding { verdict, address, detail, rtt_us, control } = find(bench, &trial).await;
    let wanted = trial.wanted;
    let ok = matches!(
        (wanted.verdict, verdict),
        (ExpectedVerdict::Reachable, Verdict::Reachable) | (ExpectedVerdict::Blocked, Verdict::Blocked)
    );
    Measured {
        index: trial.index,
        line: wanted.line,
        from: wanted.from.to_string(),
        to: wanted.to.to_string(),
        service: wanted.service,
        via: wanted.via.clone(),
        family: trial.v4.map(|v4| if v4 { 4 } else { 6 }),
        address,
        expected: wanted.verdict,
        verdict,
        ok,
        detail,
        rtt_us,
        control,
    }
}

async fn find(bench: &Bench<'_>, trial: &Trial<'_>) -> Finding {
    let inconclusive = |address, detail| Finding {
        verdict: Verdict::Inconclusive,
        address,
        detail,
        rtt_us: None,
        control: None,
    };
    if let Some(why) = &trial.impossible {
        return inconclusive(None, why.clone());
    }
    if let Some((question, Outcome::Answered { line, rtt })) =
        trial.outcomes.iter().find(|(_, outcome)| trial.right_answer(outcome))
    {
        let known = |who: &&str| who.contains('/') || trial.answerers.contains(*who);
        let detail = match line.as_deref().and_then(|line| line.split(' ').next()).filter(known) {
            Some(who) => format!("answered by {who}"),
            None => "answered".to_owned(),
        };
        return Finding {
            verdict: Verdict::Reachable,
            address: Some(question.address),
            detail,
            rtt_us: rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            control: None,
        };
    }
    let stranger = |(question, outcome): &(Question, Outcome)| {
        trial.stranger(outcome).map(|who| (question.address, who.to_owned()))
    };
    if let Some((address, who)) = trial.outcomes.iter().find_map(stranger) {
        let right: Vec<&str> = trial.answerers.iter().map(String::as_str).collect();
        return inconclusive(Some(address), format!("answered by {who} instead of {}", right.join(" or ")));
    }
    silent(bench, trial).await
}

/// Nobody answered: blocked, if the controls say so.
async fn silent(bench: &Bench<'_>, trial: &Trial<'_>) -> Finding {
    let address = trial.outcomes.first().map(|(question, _)| question.address);
    let silences: Vec<(IpAddr, &Silence)> = trial
        .outcomes
        .iter()
        .filter_map(|(question, outcome)| match outcome {
            Outcome::Silent(silence) => Some((question.address, silence)),
            Outcome::Answered { .. } => None,
        })
        .collect();
    let detail = match silences.as_slice() {
        [(_, one)] => one.to_string(),
        many => {
            let words: Vec<String> =
                many.iter().map(|(address, silence)| format!("{address} {silence}")).collect();
            words.join("; ")
        }
    };
    let finding = |verdict, detail, control| Finding { verdict, address, detail, rtt_us: None, control };
    if silences.is_empty() || silences.iter().any(|(_, silence)| silence.proves_nothing()) {
        return finding(Verdict::Inconclusive, detail, None);
    }
    let mut shown = Vec::new();
    for (question, _) in &trial.outcomes {
        match control(bench, trial, *question).await {
            Ok(what) => shown.push(what),
            Err(why) => {
                let detail = format!("{detail}, but nothing is proven: {why}");
                return finding(Verdict::Inconclusive, detail, Some(why));
            }
        }
    }
    shown.dedup();
    if let Some(address) = address
        && let Err(why) = bench.alive(&trial.wanted.from, address).await
    {
        let detail = format!("{detail}, but nothing is proven: {why}");
        return finding(Verdict::Inconclusive, detail, Some(why));
    }
    finding(Verdict::Blocked, detail, Some(shown.join("; ")))
}

/// Shows that what was asked could have been answered.
///
/// # Errors
/// Why it could not, or why that cannot be shown.
async fn control(bench: &Bench<'_>, trial: &Trial<'_>, question: Question) -> Result<String, String> {
    let Question { address, service, line } = question;
    if let Some(other) = bench.reached_by(question) {
        return Ok(format!("{other} reaches {service} at {address}"));
    }
    let to = &trial.wanted.to;
    let behind = match to {
        Endpoint::Guest(name) => bench.topology.guests.get(name).map_or_else(Vec::new, |guest| {
            let own = guest.serve.contains(&service);
            if own { Vec::new() } else { forwarded_to(bench.topology, guest, service) }
        }),
        _ => Vec::new(),
    };
    // A port forward is answered by the guest behind it.
    let same_family =
        behind.into_iter().find(|(_, address, _)| address.is_ipv4() == question.address.is_ipv4());
    let elsewhere = bench.endpoints.proof(to, trial.wanted.via.as_deref(), address, service);
    let (endpoint, question) = match (elsewhere, same_family) {
        (Some((endpoint, address, service)), _) => (endpoint, Question { address, service, line }),
        (None, Some((guest, address, service))) => {
            (Endpoint::Guest(guest.name.clone()), Question { address, service, line })
        }
        (None, None) => (to.clone(), question),
    };
    if let Endpoint::Address(address) = endpoint {
        return Err(format!("no other endpoint reached {address}"));
    }
    match bench.endpoints.vantage(&endpoint).await {
        Ok(Some(_)) => {}
        Ok(None) => return Err(format!("no other endpoint reached {endpoint}")),
        Err(e) => return Err(e.to_string()),
    }
    let Question { address, service, .. } = question;
    match bench.ask_itself(&endpoint, question).await {
        outcome if trial.right_answer(&outcome) => {
            Ok(format!("{endpoint} itself answers {service} at {address}"))
        }
        Outcome::Answered { .. } => Err(format!("somebody else answers for {endpoint} at {address}")),
        Outcome::Silent(why) => Err(format!("{endpoint} itself does not answer {service}: {why}")),
    }
}
