//! The product against a reference model: random messages by seed, each of which must succeed or be
//! refused as the model says, and leave what the model has.

mod words;

use std::{collections::BTreeSet, net::IpAddr};

use model::{Code, Id, Kind, Record, resource::account::Account};
use netloom_control::Caller;
use proptest::{
    collection::vec, prelude::*, sample::select, strategy::ValueTree, test_runner::TestRunner,
};
use store::{Read, Store, engine::memory::Fault};
use uuid::Uuid;

use crate::{
    harness::{ADMINISTRATOR, Cloud},
    reference::{Call, Start, View, Who, World},
};
use words::{request, seen};

const TENANT: Id<Account> = Id::new(Uuid::from_u128(0xa));

/// Does it; of messages the code of a refusal.
fn act(cloud: &Cloud, who: Who, call: &Call) -> Result<(), Code> {
    let Some(request) = request(call) else {
        let let_go = |tx: &mut store::Tx<Record>| {
            let open: Vec<Uuid> = tx.list(Kind::Release).map(|row| row.uuid()).collect();
            open.into_iter().for_each(|release| netloom_control::releaser::forget(tx, release));
            Ok(())
        };
        // It lets go what it knows of, so it knows all.
        cloud.engine.show_log();
        cloud.store.follow().unwrap();
        // Nothing that callers see tells whether this was done, so it is, whatever fails once.
        // Each fault befalls one commit, and a step has one at most.
        let mut tries = (0..=STEPS_MAX).map(|_| cloud.store.transact(let_go));
        assert!(tries.any(|done| done.is_ok()), "more faults than were made");
        return Ok(());
    };
    let source = IpAddr::from([127, 0, 0, 1]);
    let caller = match who {
        Who::Admin => ADMINISTRATOR,
        Who::Tenant => Caller::Account { id: TENANT, is_admin: false, session: None, source },
    };
    cloud.send(caller, vec![request]).map(|_| ()).map_err(|error| error.code)
}

/// The numbers by which a history is made up.
struct Dice<'a>(std::slice::Iter<'a, u8>);

impl Dice<'_> {
    fn roll(&mut self, sides: usize) -> usize {
        self.0.next().map_or(0, |number| usize::from(*number) % sides)
    }

    fn is(&mut self, sides: usize) -> bool {
        self.roll(sides) == 1
    }

    /// Mostly one of these; sometimes another resource, or nothing that there is.
    fn id(&mut self, world: &World, who: Who, ids: Vec<Uuid>) -> Uuid {
        let own = ids.iter().copied().filter(|id| world.owner(*id) == Some(who));
        let own: Vec<Uuid> = own.collect();
        let ids = if who == Who::Tenant && !own.is_empty() && !self.is(6) { own } else { ids };
        match self.roll(32) {
            1 => Uuid::from_u128(0xbad),
            _ if ids.is_empty() => Uuid::from_u128(0xbad),
            _ => ids[self.roll(ids.len())],
        }
    }

    /// Of something new; sometimes somebody has it.
    fn fresh(&mut self, world: &World, step: usize) -> Uuid {
        let taken = world.l2s().chain(world.vms());
        let taken: Vec<Uuid> = taken.collect();
        match self.roll(32) {
            1 if !taken.is_empty() => taken[self.roll(taken.len())],
            _ => Uuid::from_u128(0x1000 + step as u128),
        }
    }

    fn address(&mut self) -> Option<u8> {
        let last = u8::try_from(8 + self.roll(16)).unwrap();
        self.is(3).then_some(last)
    }
}

/// Kinds of calls, what makes something more often.
const CALLS: usize = 64;

/// What a history is mostly about: rules about the life of instances show only after several calls for
/// one of them.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Focus {
    All,
    Instances,
    InstancesOfTenant,
}

/// The calls about instances and NICs.
const OF_INSTANCES: (usize, usize) = (30, 29);

#[expect(clippy::too_many_lines, reason = "a uniform table")]
fn made_up(world: &World, (focus, step): (Focus, usize), dice: &mut Dice<'_>) -> (Who, Call) {
    let what = match focus {
        Focus::All => dice.roll(CALLS),
        _ if dice.is(6) => dice.roll(CALLS),
        _ => OF_INSTANCES.0 + dice.roll(OF_INSTANCES.1),
    };
    let is_tenant = if focus == Focus::InstancesOfTenant { !dice.is(6) } else { dice.is(3) };
    let who = if is_tenant { Who::Tenant } else { Who::Admin };
    let (zones, l2s, vms): (Vec<_>, Vec<_>, Vec<_>) =
        (world.zones().collect(), world.l2s().collect(), world.vms().collect());
    let (l3s, nics): (Vec<_>, Vec<_>) = (world.l3s().collect(), world.nics().collect());
    let pools: Vec<_> = world.pools().collect();
    let pools = if dice.is(8) { l2s.clone() } else { pools };
    let (clusters, hosts): (Vec<_>, Vec<_>) = (world.clusters().collect(), world.hosts().collect());
    let call = match what {
        0 => Call::CreateZone { id: dice.fresh(world, step) },
        1 => match dice.roll(3) {
            1 => Call::DeleteZone { id: dice.id(world, who, zones) },
            _ => Call::DeleteCluster { id: dice.id(world, who, clusters) },
        },
        2 | 3 => {
            let zone = dice.id(world, who, zones);
            Call::CreateCluster { id: dice.fresh(world, step), zone }
        }
        4 | 5 => {
            let ip = [u8::from(dice.is(4)), u8::try_from(1 + dice.roll(12)).unwrap()];
            let cluster = dice.id(world, who, clusters);
            Call::AddHost { id: dice.fresh(world, step), cluster, ip }
        }
        6 | 7 => Call::DeleteHost { id: dice.id(world, who, hosts), is_dead: dice.is(2) },
        8 => Call::CreatePool { id: dice.fresh(world, step), zone: dice.id(world, who, zones) },
        9 | 10 => {
            let low = u32::try_from(100 + dice.roll(12)).unwrap();
            let vnis = (low, (low + 3).saturating_sub(u32::try_from(dice.roll(5)).unwrap()));
            Call::CreateVnis { id: dice.fresh(world, step), pool: dice.id(world, who, pools), vnis }
        }
        11 => Call::DeleteVnis { id: dice.id(world, who, world.vni_ranges().collect()) },
        12..=15 => {
            let vni = dice.is(3).then_some(u32::try_from(100 + dice.roll(16)).unwrap());
            Call::CreateL2 { id: dice.fresh(world, step), pool: dice.id(world, who, pools), vni }
        }
        16 => Call::DeleteL2 { id: dice.id(world, who, l2s) },
        17 | 18 => {
            Call::Attach { l2: dice.id(world, who, pools), cluster: dice.id(world, who, clusters) }
        }
        19 => {
            Call::Detach { l2: dice.id(world, who, pools), cluster: dice.id(world, who, clusters) }
        }
        20..=22 => Call::CreateL3 { id: dice.fresh(world, step), l2: dice.id(world, who, l2s) },
        23 => Call::DeleteL3 { id: dice.id(world, who, l3s) },
        24 | 25 => Call::SetL3State { id: dice.id(world, who, l3s), enabled: !dice.is(3) },
        26..=28 => {
            let low = u8::try_from(8 + dice.roll(16)).unwrap();
            let ips = (low, (low + 3).saturating_sub(u8::try_from(dice.roll(5)).unwrap()));
            Call::AddRange { id: dice.fresh(world, step), l3: dice.id(world, who, l3s), ips }
        }
        29 => Call::DeleteRange { id: dice.id(world, who, world.ranges().collect()) },
        30..=36 => {
            let mut given = vec![(dice.id(world, who, l3s.clone()), dice.address())];
            if dice.is(3) {
                given.push((dice.id(world, who, l3s), dice.address()));
            }
            let host = (dice.is(3) && who == Who::Admin).then(|| dice.id(world, who, hosts));
            let start = [Start::Instant, Start::JustCreate, Start::Stopped, Start::Instant];
            let start = start[dice.roll(4)];
            Call::CreateVm { id: dice.fresh(world, step), l3s: given, host, start }
        }
        37..=39 => {
            let host = dice.is(3).then(|| dice.id(world, who, hosts));
            Call::StartVm { id: dice.id(world, who, vms), host }
        }
        40 | 41 => Call::StopVm { id: dice.id(world, who, vms) },
        42 => Call::RebootVm { id: dice.id(world, who, vms) },
        43 | 44 => Call::DestroyVm { id: dice.id(world, who, vms) },
        45..=47 => Call::RecoverVm { id: dice.id(world, who, vms) },
        48 => Call::ExpungeVm { id: dice.id(world, who, vms) },
        49 | 50 => {
            let l3 = dice.id(world, who, l3s);
            Call::CreateNic { id: dice.fresh(world, step), l3, ip: dice.address() }
        }
        51 => Call::DeleteNic { id: dice.id(world, who, nics) },
        52 | 53 => Call::PlugNic { vm: dice.id(world, who, vms), nic: dice.id(world, who, nics) },
        54 | 55 => {
            let (vm, l3) = (dice.id(world, who, vms), dice.id(world, who, l3s));
            Call::AttachL3 { vm, l3, ip: dice.address() }
        }
        56 => Call::UnplugNic { nic: dice.id(world, who, nics) },
        57 | 58 => {
            let (vm, l3) = (dice.id(world, who, vms), dice.id(world, who, l3s));
            Call::SetIp { vm, l3, ip: u8::try_from(8 + dice.roll(16)).unwrap() }
        }
        59 => {
            let name = ["vm.num", "l3.num", "vxlan.num"][dice.roll(3)];
            Call::SetQuota { name, value: dice.roll(4) as u64 }
        }
        60 | 61 => {
            let all = [zones, l2s, l3s, vms, nics].concat();
            Call::Give { to: who, id: dice.id(world, Who::Admin, all) }
        }
        62 => return (Who::Admin, Call::LetGo),
        _ if hosts.is_empty() => return (Who::Admin, Call::LetGo),
        _ => {
            let host = hosts[dice.roll(hosts.len())];
            return (Who::Admin, Call::Connect { host, up: !dice.is(3) });
        }
    };
    // What only administrators may do, they do mostly.
    let who = if what < 12 || (17..20).contains(&what) || (59..62).contains(&what) {
        if dice.is(12) { Who::Tenant } else { Who::Admin }
    } else {
        who
    };
    (who, call)
}

/// Two hosts with tunnels and one without, networks of both accounts; a pool that none is in.
fn first_calls() -> Vec<Call> {
    let id = |number: u128| Uuid::from_u128(number);
    let (zone, cluster, pool) = (id(0x10), id(0x11), id(0x12));
    let mut calls = vec![
        Call::CreateZone { id: zone },
        Call::CreateCluster { id: cluster, zone },
        Call::CreatePool { id: pool, zone },
        Call::CreateVnis { id: id(0x13), pool, vnis: (100, 104) },
        Call::Attach { l2: pool, cluster },
        // With the same VNIs: not for hosts that are in the other one.
        Call::CreatePool { id: id(0x14), zone },
        Call::CreateVnis { id: id(0x15), pool: id(0x14), vnis: (100, 104) },
    ];
    for (number, ip) in [(0x20, [0, 1]), (0x21, [0, 2]), (0x22, [1, 3])] {
        calls.push(Call::AddHost { id: id(number), cluster, ip });
        calls.push(Call::Connect { host: id(number), up: true });
    }
    for number in [0x30, 0x40, 0x50] {
        let (l2, l3) = (id(number), id(number + 1));
        calls.push(Call::CreateL2 { id: l2, pool, vni: None });
        calls.push(Call::CreateL3 { id: l3, l2 });
        calls.push(Call::AddRange { id: id(number + 2), l3, ips: (10, 12) });
    }
    calls.push(Call::SetQuota { name: "vm.num", value: 2 });
    calls.push(Call::Give { to: Who::Tenant, id: id(0x50) });
    calls.push(Call::Give { to: Who::Tenant, id: id(0x51) });
    calls.push(Call::Give { to: Who::Tenant, id: pool });
    calls
}

/// Servers on one engine, and what the model has after each of the calls so far.
struct Trial {
    clouds: Vec<Cloud>,
    worlds: Vec<World>,
    /// What each server knows at least.
    known: Vec<usize>,
}

impl Trial {
    fn start(servers: usize) -> Self {
        let first = Cloud::empty();
        crate::harness::tenant(&first, 0xa);
        let mut trial =
            Self { clouds: vec![first], worlds: vec![World::default()], known: vec![0] };
        for call in first_calls() {
            assert_eq!(trial.step(0, Who::Admin, &call), Ok(()));
        }
        while trial.clouds.len() < servers {
            trial.clouds.push(trial.clouds[0].second_server());
            trial.known.push(trial.worlds.len() - 1);
        }
        trial
    }

    fn world(&self) -> &World {
        self.worlds.last().unwrap()
    }

    /// One server does something, and the model.
    fn step(&mut self, at: usize, who: Who, call: &Call) -> Result<(), Code> {
        if let Call::Connect { host, up } = call {
            for cloud in &mut self.clouds {
                match *up {
                    true => cloud.acked(&host.simple().to_string(), 0),
                    false => cloud.lost(&host.simple().to_string()),
                }
            }
            self.worlds.iter_mut().for_each(|world| {
                world.apply(who, call, &View::default()).unwrap();
            });
            return Ok(());
        }
        let result = act(&self.clouds[at], who, call);
        if result == Err(Code::StoreUnavailable) {
            self.settle(at, who, call);
            return result;
        }
        let what = || format!("{who:?} {call:?}\nin {:#?}", self.world().view());
        if let Err(code) = result {
            let says = |world: &World| world.clone().apply(who, call, &View::default());
            let said: Vec<_> = self.worlds[self.known[at]..].iter().map(says).collect();
            assert!(said.contains(&Err(code)), "{code:?}, not {said:?}: {}", what());
            return result;
        }
        let view = seen(&self.clouds[at], &self.clouds[at].snapshot());
        let mut world = self.world().clone();
        world.is_late = self.known[at] + 1 < self.worlds.len();
        assert_eq!(world.apply(who, call, &view), Ok(()), "{}", what());
        assert_eq!(world.view(), view, "after {}", what());
        self.worlds.push(world);
        self.known[at] = self.worlds.len() - 1;
        Ok(())
    }

    /// Nobody knows whether it was done: either is right, and nothing else.
    fn settle(&mut self, at: usize, who: Who, call: &Call) {
        let engine = Box::new(self.clouds[at].engine.clone());
        let truth: Store<Record> = Store::open(engine).unwrap();
        let view = seen(&self.clouds[at], &truth.snapshot());
        if self.world().view() == view {
            return;
        }
        let mut world = self.world().clone();
        world.is_late = true;
        assert_eq!(world.apply(who, call, &view), Ok(()), "{call:?}");
        assert_eq!(world.view(), view, "after {call:?}");
        self.worlds.push(world);
    }
}

/// Fewer steps than these.
const STEPS_MAX: usize = 96;

/// What it is about, and the numbers of each step.
type History = (Focus, Vec<Vec<u8>>);

fn histories() -> impl Strategy<Value = History> {
    let focus = [Focus::All, Focus::Instances, Focus::InstancesOfTenant];
    (select(focus.to_vec()), vec(vec(any::<u8>(), 0..20), 1..STEPS_MAX))
}

fn agree((focus, history): &History) {
    let mut trial = Trial::start(1);
    for (step, numbers) in history.iter().enumerate() {
        let (who, call) = made_up(trial.world(), (*focus, step), &mut Dice(numbers.iter()));
        let before = trial.clouds[0].snapshot().revision();
        let result = trial.step(0, who, &call);
        let is_same = trial.clouds[0].snapshot().revision() == before;
        assert!(is_same || result.is_ok(), "{call:?} is refused, and done");
    }
}

/// Two servers that see each other late; either may crash and come back, and a commit may be one of
/// which nobody knows whether it happened.
fn agree_apart((focus, history): &History) {
    let mut trial = Trial::start(2);
    for (step, numbers) in history.iter().enumerate() {
        let mut dice = Dice(numbers.iter());
        let (at, event) = (dice.roll(2), dice.roll(12));
        let (who, call) = made_up(trial.world(), (*focus, step), &mut dice);
        let engine = trial.clouds[at].engine.clone();
        match event {
            1 => {
                trial.clouds[at] = trial.clouds[1 - at].second_server();
                trial.known[at] = trial.known[1 - at];
            }
            2 => engine.inject(Fault::FailBefore),
            3 => engine.inject(Fault::FailAfter),
            4 => engine.inject(Fault::Conflict),
            5..8 => engine.delay_log(),
            _ => engine.show_log(),
        }
        let _: Result<(), Code> = trial.step(at, who, &call);
    }
    let engine = trial.clouds[0].engine.clone();
    engine.show_log();
    let reopened: Store<Record> = Store::open(Box::new(engine)).unwrap();
    for cloud in &trial.clouds {
        cloud.store.follow().unwrap();
        assert_eq!(seen(cloud, &cloud.snapshot()), trial.world().view());
        assert_eq!(seen(cloud, &reopened.snapshot()), trial.world().view());
    }
}

/// After so many histories what was never seen is taken for what cannot be.
const HISTORIES_MAX: usize = 500;

/// Or the tests above would prove nothing of it.
#[test]
fn every_call_of_the_model_succeeds_and_every_code_of_it_is_met() {
    let (mut runner, mut found) = (TestRunner::deterministic(), BTreeSet::new());
    let (mut codes, wanted) = (BTreeSet::new(), 35);
    let all = [
        Code::AccessDenied,
        Code::InUse,
        Code::InvalidArgument,
        Code::IpExhausted,
        Code::NoHost,
        Code::NotFound,
        Code::OperationFailed,
        Code::QuotaExceeded,
        Code::UuidTaken,
        Code::VniExhausted,
    ];
    for _ in 0..HISTORIES_MAX {
        let (focus, history) = histories().new_tree(&mut runner).unwrap().current();
        let mut trial = Trial::start(1);
        for (step, numbers) in history.iter().enumerate() {
            let (who, call) = made_up(trial.world(), (focus, step), &mut Dice(numbers.iter()));
            let name = format!("{call:?}").split(' ').next().unwrap().to_owned();
            match trial.step(0, who, &call) {
                Ok(()) => drop(found.insert(name)),
                Err(code) => drop(codes.insert(code.as_str())),
            }
        }
        if found.len() == wanted && codes.len() == all.len() {
            break;
        }
    }
    assert_eq!(found.len(), wanted, "{found:?}");
    assert_eq!(codes, all.iter().map(|code| code.as_str()).collect());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn each_message_does_what_the_reference_model_says(history in histories()) {
        agree(&history);
    }

    #[test]
    fn two_servers_that_crash_and_see_each_other_late_do_what_it_says(history in histories()) {
        agree_apart(&history);
    }
}
