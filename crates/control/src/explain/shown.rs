//! A packet's way as the API shows it.

use model::{Kind, Record};
use serde_json::{Value, json};
use store::Snapshot;
use wire::{
    policy::{Action, Way as Opened},
    question::{By, Decision, End, Step},
};

use super::{
    Names,
    probe::{self, Probe},
    trace::{Hop, Way},
};

/// How a packet ends, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It comes out of a NIC.
    Delivered,
    /// It is dropped.
    Dropped,
    /// Netloom itself answers.
    Answered,
    /// It leaves what netloom knows.
    Leaves,
    /// It is not known.
    Unknown,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "Delivered",
            Self::Dropped => "Dropped",
            Self::Answered => "Answered",
            Self::Leaves => "Leaves",
            Self::Unknown => "Unknown",
        }
    }
}

/// The answer about a packet.
pub(super) fn way(way: &Way, probe: &Probe, names: &Names<'_>, read: &Snapshot<Record>) -> Value {
    let (nic, question) = (&probe.nic, &probe.question);
    let to = probe::holder(read, nic.l2_network_uuid, question.remote);
    let hops = || way.hops.iter().zip(1..);
    let steps = hops().flat_map(|(hop, at)| {
        let step = move |found| step(found, (hop, at), names);
        hop.trace.steps.iter().map(step)
    });
    let decisions = hops().flat_map(|(hop, at)| {
        let decided = move |found| decision(found, (hop, at), names);
        hop.trace.decisions.iter().map(decided)
    });
    let hosts = hops().map(|(hop, at)| {
        json!({"hop": at, "host": names.host(hop.host), "revision": hop.trace.revision})
    });
    let (verdict, reason, words) = end(way, names);
    json!({
        "from": names.of(Kind::VmNic, nic.uuid.uuid()),
        "to": to.map(|who| names.of(who.kind, who.uuid)),
        "packet": probe::shown(question, probe::source(read, question)),
        "verdict": verdict.as_str(),
        "reason": reason,
        "words": words,
        "decidedBy": decided_by(way, verdict, names),
        "inconclusive": way.doubts,
        "hosts": hosts.collect::<Vec<_>>(),
        "steps": steps.collect::<Vec<_>>(),
        "decisions": decisions.collect::<Vec<_>>(),
    })
}

/// How it ends: in a word, the reason's name if it is dropped, and in words.
fn end(way: &Way, names: &Names<'_>) -> (Verdict, Option<String>, String) {
    if let Some(lost) = &way.lost {
        return (Verdict::Unknown, None, lost.clone());
    }
    if let Some(who) = &way.leaves {
        return (Verdict::Leaves, None, format!("it goes to {who}"));
    }
    match way.hops.last().map(|hop| &hop.trace.end) {
        None => (Verdict::Unknown, None, "no host was asked".to_owned()),
        Some(End::Dropped(dropped)) => {
            (Verdict::Dropped, Some(dropped.reason.clone()), names.text(&dropped.meaning))
        }
        Some(End::Delivered(delivered)) => {
            let who = names.object(delivered.port);
            let who = who["words"].as_str().unwrap_or("a NIC").to_owned();
            (Verdict::Delivered, None, format!("it comes out of {who}"))
        }
        Some(End::Served(served)) => {
            (Verdict::Answered, None, format!("netloom answers: {}", names.text(&served.by)))
        }
        Some(End::Other(other)) => (Verdict::Unknown, None, names.text(&other.what)),
        Some(End::Sent(_)) => {
            (Verdict::Unknown, None, "it was not followed any further".to_owned())
        }
    }
}

fn step(step: &Step, (hop, at): (&Hop, usize), names: &Names<'_>) -> Value {
    json!({
        "hop": at,
        "host": names.host(hop.host)["name"],
        "stage": step.stage,
        "text": names.about(step.object, &step.text),
        "object": step.object.map(|uuid| names.object(uuid)),
    })
}

fn decision(decided: &Decision, (hop, at): (&Hop, usize), names: &Names<'_>) -> Value {
    let Decision { port, way, by, action, rule, group, is_stateless } = decided;
    let nic = names.of(Kind::VmNic, *port);
    let rule = rule.map(|id| names.of(Kind::SecurityGroupRule, id));
    let group = group.map(|id| names.of(Kind::SecurityGroup, id));
    let (ways, action) = (way_word(*way), action_word(*action));
    let word = |of: &Option<Value>, else_: &str| {
        let words = of.as_ref().and_then(|of| of["words"].as_str());
        words.unwrap_or(else_).to_owned()
    };
    let by_what = match by {
        By::Rule => {
            format!("{} of {}", word(&rule, "a rule"), word(&group, "a security group"))
        }
        By::Policy => format!("no rule decides, so the {} policy does", ways.to_lowercase()),
        By::Nothing => "no security group counts there".to_owned(),
        By::Closed => "the NIC is closed: what it needs is not there, or has no room".to_owned(),
    };
    let who = nic["words"].as_str().unwrap_or("a NIC");
    json!({
        "hop": at,
        "host": names.host(hop.host)["name"],
        "words": format!("{} of {who}: {action} ({by_what})", ways.to_lowercase()),
        "nic": nic,
        "way": ways,
        "by": by_word(*by),
        "action": action,
        "rule": rule,
        "securityGroup": group,
        "isStateless": is_stateless,
    })
}

/// What decided how it ends: who has denied it, or who has allowed it last.
fn decided_by(way: &Way, verdict: Verdict, names: &Names<'_>) -> Value {
    let all = || {
        way.hops.iter().zip(1..).flat_map(|(hop, at)| {
            hop.trace.decisions.iter().map(move |decided| (decided, (hop, at)))
        })
    };
    let found = match verdict {
        Verdict::Dropped => all().filter(|(decided, _)| decided.action == Action::Drop).last(),
        Verdict::Delivered | Verdict::Leaves => all().last(),
        Verdict::Answered | Verdict::Unknown => None,
    };
    found.map_or(Value::Null, |(decided, of)| decision(decided, of, names))
}

pub(super) const fn way_word(way: Opened) -> &'static str {
    match way {
        Opened::Ingress => "Ingress",
        Opened::Egress => "Egress",
    }
}

const fn action_word(action: Action) -> &'static str {
    match action {
        Action::Accept => "ACCEPT",
        Action::Drop => "DROP",
    }
}

const fn by_word(by: By) -> &'static str {
    match by {
        By::Rule => "Rule",
        By::Policy => "Policy",
        By::Nothing => "Nothing",
        By::Closed => "Closed",
    }
}
