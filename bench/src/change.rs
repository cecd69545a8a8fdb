//! From a change of a rule, acknowledged, to packets that obey it: in a group with few NICs and in one
//! with many, on two hosts.
//!
//! Somebody in no group asks NICs of the group by ICMP echo. A rule that lets it is turned on and off.

use std::{
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use client::Started;
use serde_json::json;

use crate::{
    Failure,
    filtered::Filtered,
    loom::{HOST, Loom, OTHER_HOST, params, text},
    ping::Pinger,
    plan::{Group, Metric, Step},
    stats,
};

/// How soon a change counts.
pub(crate) const CHANGE: Group = Group {
    id: "groups-change",
    steps: &[Step {
        id: "rule",
        contenders: &[FEW, "1000-nics"],
        metrics: &[
            Metric { id: "open-p50", unit: "ms", quantile: 0.5 },
            Metric { id: "open-p99", unit: "ms", quantile: 0.99 },
            Metric { id: "cut-p50", unit: "ms", quantile: 0.5 },
            Metric { id: "cut-p99", unit: "ms", quantile: 0.99 },
            Metric { id: "acknowledged-p50", unit: "ms", quantile: 0.5 },
            Metric { id: "succeeds-p50", unit: "ms", quantile: 0.5 },
            Metric { id: "succeeds-p99", unit: "ms", quantile: 0.99 },
        ],
    }],
};

const FEW: &str = "10-nics";
/// NICs of either group, one half on each host.
const COUNTS: [u32; 2] = [10, 1_000];
/// So much that each host has room for its half, and the connections of all.
const CONNECTION_MIB: u32 = 240;
/// Changes of a sample, each there and back.
const CHANGES: usize = 5;
/// NICs that are asked on each host: the first one, the last one and some between.
const ASKED: usize = 5;
/// How long a job may take that is under way.
const PATIENCE: Duration = Duration::from_secs(60);

/// Both groups, and who asks.
pub(crate) struct Change {
    pinger: Pinger,
    groups: Vec<Asked>,
    loom: Loom,
}

/// A group.
struct Asked {
    uuid: String,
    rule: String,
    /// Addresses of some of its NICs.
    nics: Vec<Ipv4Addr>,
}

/// What one change took, in ms.
struct Took {
    /// From the call to the acknowledgement: it is on disk.
    acknowledged: f64,
    /// From there to the packets.
    effective: f64,
    /// From there to the success of its job.
    succeeds: f64,
}

impl Change {
    /// Makes the VMs.
    ///
    /// # Errors
    /// What the lab or the server says.
    pub(crate) fn new(binary: &Path) -> Result<Self, Failure> {
        let loom = Loom::with_room(binary, CONNECTION_MIB)?;
        let start = Instant::now();
        let filtered = Filtered::new(&loom)?;
        let pinger = Pinger::open(&filtered.vm("asker", HOST)?.namespace)?;
        let mut groups = Vec::new();
        for count in COUNTS {
            groups.push(Asked::new(&filtered, count)?);
        }
        eprintln!("groups-change: all is there after {:.1} s", start.elapsed().as_secs_f64());
        Ok(Self { pinger, groups, loom })
    }

    /// Takes a sample.
    pub(crate) fn sample(&mut self, contender: &str) -> Result<Vec<Vec<f64>>, Failure> {
        let group = usize::from(contender != FEW);
        let (mut opens, mut cuts) = (Vec::new(), Vec::new());
        for _ in 0..CHANGES {
            opens.push(self.change(group, "Enabled")?);
            cuts.push(self.change(group, "Disabled")?);
        }
        let of =
            |took: &[Took], value: fn(&Took) -> f64| took.iter().map(value).collect::<Vec<f64>>();
        let (open, cut) = (of(&opens, |took| took.effective), of(&cuts, |took| took.effective));
        opens.extend(cuts);
        let succeeds = of(&opens, |took| took.succeeds);
        let acknowledged = of(&opens, |took| took.acknowledged);
        Ok(vec![open.clone(), open, cut.clone(), cut, acknowledged, succeeds.clone(), succeeds])
    }

    /// Turns the rule of a group on or off.
    fn change(&self, group: usize, state: &str) -> Result<Took, Failure> {
        let group = &self.groups[group];
        let wanted =
            json!({"securityGroupUuid": group.uuid, "ruleUuids": [group.rule], "state": state});
        let called = Instant::now();
        let name = "ChangeSecurityGroupRuleState";
        let started = self.loom.client.start(name, params(wanted), &[], Duration::ZERO)?;
        let acknowledged = Instant::now();
        let effective = match state {
            "Enabled" => {
                for nic in &group.nics {
                    self.pinger.first_reply(*nic)?;
                }
                acknowledged.elapsed()
            }
            _ => self.pinger.last_reply(&group.nics)?.saturating_duration_since(acknowledged),
        };
        let succeeds = match started {
            Started::Done(_) => Duration::ZERO,
            Started::Job(job) => {
                self.loom.client.wait(&job, PATIENCE, |_| ())?;
                acknowledged.elapsed()
            }
        };
        Ok(Took {
            acknowledged: stats::ms(acknowledged - called),
            // A figure is more than nothing: as exact as they are asked.
            effective: stats::ms(effective.max(Duration::from_micros(1))),
            succeeds: stats::ms(succeeds.max(Duration::from_micros(1))),
        })
    }
}

impl Asked {
    fn new(filtered: &Filtered<'_>, count: u32) -> Result<Self, Failure> {
        let group = filtered.group(&format!("asked-{count}"))?;
        let ping = json!({"type": "Ingress", "protocol": "ICMP", "state": "Disabled"});
        let made = filtered.rules(&group, vec![ping])?;
        let rules = made["rules"].as_array().ok_or("a group without rules")?;
        let own = rules.iter().find(|rule| rule["protocol"] == "ICMP");
        let rule = text(own.ok_or("the group has not got its rule")?, "uuid")?;
        let mut nics = Vec::new();
        for host in [HOST, OTHER_HOST] {
            let vms = filtered.vms(host, &format!("{host}-{count}"), count / 2)?;
            let (uuids, own): (Vec<String>, Vec<Ipv4Addr>) = vms.into_iter().unzip();
            filtered.join(&group, &uuids)?;
            let step = (own.len() - 1) / (ASKED - 1);
            nics.extend((0..ASKED).map(|at| own[at * step]));
        }
        Ok(Self { uuid: group, rule, nics })
    }
}
