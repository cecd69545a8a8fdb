//! What queries cost at 100,000 NICs: `cargo test --release -p netloom-control --lib figures --
//! --ignored --nocapture`.

use std::time::{Duration, Instant};

use model::{Kind, Record};
use store::Snapshot;

use super::{
    fixture::{Cloud, account, board},
    *,
};

const CLOUD: Cloud = Cloud { nics: 100_000, nics_per_network: 1_000 };

/// Prints the least, the median and the 99th percentile of several times, and gives the
/// least, which what else runs on the machine moves least.
fn measure(what: &str, times: usize, mut once: impl FnMut(usize)) -> Duration {
    let mut took: Vec<Duration> = (0..times)
        .map(|n| {
            let start = Instant::now();
            once(n);
            start.elapsed()
        })
        .collect();
    took.sort_unstable();
    let (least, median, p99) = (took[0], took[times / 2], took[times * 99 / 100]);
    eprintln!("{what:<48} min {least:>9.1?}  p50 {median:>9.1?}  p99 {p99:>9.1?}");
    least
}

struct Asked<'a>(&'a Snapshot<Record>);

impl Asked<'_> {
    fn time(&self, what: &str, times: usize, query: impl Fn(usize) -> Query) -> Duration {
        let board = board();
        measure(what, times, |n| {
            run(&query(n), &Observed::new(self.0, &board)).unwrap();
        })
    }
}

fn nics() -> Query {
    let face = &Kind::VmNic.def().faces[0];
    Query::new(Kind::VmNic, face, Scope::Everything)
}

fn when(mut query: Query, path: &str, operator: Operator, value: &str) -> Query {
    let path = Path::read(query.kind, "q", path).unwrap();
    query.conditions.push(Condition::read("q", path, operator, &[value]).unwrap());
    query
}

#[test]
#[ignore = "measures: run it alone, with --release"]
fn figures() {
    use Operator::{Equal, Like};
    let store = CLOUD.store();
    let (snapshot, ms) = (store.snapshot(), Duration::from_millis);
    let asked = Asked(&snapshot);
    let ip = |n: usize| CLOUD.ip(u32::try_from(n).unwrap() * 97).to_string();
    let everywhere = asked
        .time("ip=, the same address in 100 networks", 1000, |n| when(nics(), "ip", Equal, &ip(n)));
    let one = asked.time("ip= and l3Network.name=", 1000, |n| {
        let name = format!("l3-{}", n % 100);
        when(when(nics(), "l3Network.name", Equal, &name), "ip", Equal, &ip(n))
    });
    let fd = asked.time("ip=, one NIC", 1000, |_| when(nics(), "usedIps.ip", Equal, "fd00::1"));
    asked.time("mac=", 1000, |n| {
        when(nics(), "mac", Equal, &format!("fa:4c:00:00:00:{n:02x}")[..17])
    });
    let mut pages = Vec::new();
    for start in [0, 50_000, 99_500] {
        let what = format!("limit=500 start={start}");
        pages.push(asked.time(&what, 100, |_| Query { start, limit: 500, ..nics() }));
    }
    asked.time("limit=10,000 instances with two NICs each", 10, |_| {
        let face = &Kind::VmInstance.def().faces[0];
        let all = Query::new(Kind::VmInstance, face, Scope::Everything);
        Query { limit: LIMIT_MAX, ..all }
    });
    let total = |query: Query| Query { tells: Tells::Total, ..query };
    let counted = asked.time("count", 1000, |_| total(nics()));
    let mine = |query: Query| Query { scope: Scope::OwnedBy(account(0)), ..query };
    asked.time("count, an account's own", 1000, |_| total(mine(nics())));
    asked.time("an account's own, limit=500 start=49,500", 100, |_| {
        mine(Query { start: 49_500, limit: 500, ..nics() })
    });
    let count = |path, operator, value| total(when(nics(), path, operator, value));
    asked.time("count, unindexed deviceId=", 20, |_| count("deviceId", Equal, "1"));
    asked.time("count, mac~=%a1%", 20, |_| count("mac", Like, "%a1%"));
    asked.time("count, vmInstance.name~=%99", 20, |_| count("vmInstance.name", Like, "%99"));
    asked.time("count, vmInstance.zone.name=", 20, |_| {
        count("vmInstance.zone.name", Equal, "zone-0")
    });
    let ordered = Sort::by(Kind::VmNic, "sort", "ip", Direction::Descending).unwrap();
    asked.time("sort=-ip limit=500", 20, |_| Query { sort: Some(ordered), limit: 500, ..nics() });
    assert!(everywhere < ms(20) && one < ms(1) && fd < ms(1) && counted < ms(1));
    assert!(pages.iter().all(|took| *took < ms(20)), "{pages:?}");
}
