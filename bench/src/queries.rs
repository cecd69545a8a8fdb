//! What queries cost: ZStack's `QueryVmNic`, without REST and JSON text.

use std::time::Instant;

use control::{
    inventory::Observed,
    query::{self, Condition, Direction, Operator, Path, Query, Scope, Sort, Tells},
};
use model::{
    Id, Kind, Resource,
    resource::{account::ADMIN, used_ip::UsedIp, vm_nic::VmNic},
};
use store::Read;

use crate::{
    Failure,
    cloud::{ALIKE_IP, Cloud},
    stats,
};

/// Resources on a page.
const PAGE: usize = 500;
/// Of how many NICs the addresses are asked for in turn.
const ASKED: usize = 200;

/// A query that is measured.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    /// The step.
    pub(crate) step: &'static str,
    /// How often it is asked in one sample.
    times: usize,
    query: fn(&Known, usize) -> Result<Query, Failure>,
}

/// All of them.
const ASKED_ALL: [Asked; 8] = [
    Asked { step: "query-ip", times: 100, query: |known, n| equal("ip", known.ip(n)) },
    Asked { step: "query-ip-alike", times: 50, query: |_, _| equal("ip", &ALIKE_IP.to_string()) },
    Asked { step: "query-mac", times: 100, query: |known, n| equal("mac", known.mac(n)) },
    Asked { step: "query-page", times: 12, query: |known, n| Ok(page(known, n)) },
    Asked { step: "query-page-own", times: 12, query: |known, n| Ok(own(page(known, n))) },
    Asked { step: "query-count", times: 100, query: |_, _| Ok(total(nics())) },
    Asked { step: "query-like", times: 3, query: |_, _| like("mac", "%a1%").map(total) },
    Asked { step: "query-sorted", times: 3, query: |_, _| sorted() },
];

/// What is in a cloud, to ask for it.
struct Known {
    nics: usize,
    ips: Vec<String>,
    macs: Vec<String>,
}

impl Known {
    fn of(cloud: &Cloud) -> Result<Self, Failure> {
        let snapshot = cloud.store.snapshot();
        let nics = usize::try_from(snapshot.total(Kind::VmNic))?;
        let macs: Vec<String> = snapshot
            .list(Kind::VmNic)
            .take(ASKED)
            .filter_map(|record| VmNic::of(&record).map(|nic| nic.mac.to_string()))
            .collect();
        let ips: Vec<String> = snapshot
            .list(Kind::UsedIp)
            .filter_map(|record| UsedIp::of(&record).map(|used| used.ip))
            .filter(|ip| *ip != ALIKE_IP)
            .take(ASKED)
            .map(|ip| ip.to_string())
            .collect();
        match ips.is_empty() || macs.is_empty() {
            true => Err("a cloud without NICs".into()),
            false => Ok(Self { nics, ips, macs }),
        }
    }

    fn ip(&self, n: usize) -> &str {
        &self.ips[n % self.ips.len()]
    }

    fn mac(&self, n: usize) -> &str {
        &self.macs[n % self.macs.len()]
    }
}

/// The query that a step measures.
pub(crate) fn of_step(step: &str) -> Option<Asked> {
    ASKED_ALL.into_iter().find(|asked| asked.step == step)
}

/// How long each of several such queries takes, in ms.
pub(crate) fn sample(cloud: &Cloud, asked: Asked) -> Result<Vec<f64>, Failure> {
    let known = Known::of(cloud)?;
    let snapshot = cloud.store.snapshot();
    let mut took = Vec::new();
    for n in 0..asked.times {
        let query = (asked.query)(&known, n)?;
        let start = Instant::now();
        let found = query::run(&query, &Observed::new(&snapshot, &cloud.board))?;
        took.push(stats::ms(start.elapsed()));
        let is_empty = found.inventories.is_some_and(|page| page.is_empty());
        if is_empty || found.total == Some(0) {
            return Err(format!("{} finds nothing", asked.step).into());
        }
    }
    Ok(took)
}

fn nics() -> Query {
    Query::new(Kind::VmNic, &Kind::VmNic.def().faces[0], Scope::Everything)
}

fn equal(path: &str, value: &str) -> Result<Query, Failure> {
    when(path, Operator::Equal, value)
}

fn like(path: &str, value: &str) -> Result<Query, Failure> {
    when(path, Operator::Like, value)
}

fn when(path: &str, operator: Operator, value: &str) -> Result<Query, Failure> {
    let path = Path::read(Kind::VmNic, "q", path)?;
    let mut query = nics();
    query.conditions.push(Condition::read("q", path, operator, &[value])?);
    Ok(query)
}

/// The first page, one in the middle, the last full one, in turn.
fn page(known: &Known, n: usize) -> Query {
    let last = known.nics.saturating_sub(PAGE);
    Query { start: [0, last / 2, last][n % 3], limit: PAGE, ..nics() }
}

fn own(query: Query) -> Query {
    Query { scope: Scope::SeenBy(Id::new(ADMIN)), ..query }
}

fn total(query: Query) -> Query {
    Query { tells: Tells::Total, ..query }
}

fn sorted() -> Result<Query, Failure> {
    let sort = Sort::by(Kind::VmNic, "sort", "ip", Direction::Descending)?;
    Ok(Query { sort: Some(sort), limit: PAGE, ..nics() })
}
