//! The life of instances: started, stopped, made anew, destroyed, brought back, forgotten.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use model::{
    Claim, Code, Error, Id, Kind, Timestamp,
    resource::{
        host::Host,
        vm_instance::{Phase, VmInstance},
    },
    status::HostStatus,
};
use netloom_control::{expunger, steady::Steady};
use serde_json::{Value, json};
use store::Read;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    harness::{ADMINISTRATOR, Cloud, Fixture, request},
    releases::acknowledged,
};

fn vm(name: &str, l3: &str) -> Value {
    json!({"name": name, "l3NetworkUuids": [l3]})
}

fn on(name: &str, l3: &str, host: &str) -> Value {
    json!({"name": name, "l3NetworkUuids": [l3], "hostUuid": host})
}

fn get(cloud: &Cloud, vm: &str) -> VmInstance {
    cloud.get(vm.parse::<Id<VmInstance>>().unwrap()).unwrap()
}

/// A field of an instance as callers see it.
fn shown(cloud: &Cloud, vm: &str, field: &str) -> Value {
    let snapshot = cloud.snapshot();
    let record = snapshot.get(Kind::VmInstance, model::id::parse_uuid(vm).unwrap()).unwrap();
    let observed = netloom_control::inventory::Observed::new(&snapshot, &cloud.board);
    let mut shown = netloom_control::inventory::show(&record, &observed);
    shown.remove(field).unwrap_or_default()
}

fn state(cloud: &Cloud, vm: &str) -> String {
    shown(cloud, vm, "state").as_str().unwrap().to_owned()
}

/// The MACs of an instance's NICs, each with its addresses.
fn addresses(cloud: &Cloud, vm: &str) -> BTreeMap<String, Vec<IpAddr>> {
    let nics = cloud.nics(vm).into_iter();
    nics.map(|nic| {
        let used = cloud.addresses(nic.uuid);
        (nic.mac.to_string(), used.into_iter().map(|used| used.ip).collect())
    })
    .collect()
}

fn call(cloud: &Cloud, message: &str, vm: &str) -> Result<(), Error> {
    cloud.call(message, json!({"uuid": vm})).map(drop)
}

/// Its host says that it runs.
fn runs(cloud: &mut Cloud, vm: &str, host: &str) {
    let host: Id<Host> = host.parse().unwrap();
    let up = [model::id::parse_uuid(vm).unwrap()].into_iter().collect();
    cloud.board.put(host, HostStatus { up, ..cloud.board.status(host).clone() });
}

#[test]
fn a_stopped_instance_keeps_its_addresses_and_is_on_no_host() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let (l3, host) = (cloud.l3(&fixture, "red"), &fixture.hosts[0]);
    let vm = cloud.made("CreateVmInstance", on("a", &l3, host));
    assert_eq!(state(&cloud, &vm), "Starting");
    runs(&mut cloud, &vm, host);
    assert_eq!(state(&cloud, &vm), "Running");
    let before = addresses(&cloud, &vm);
    call(&cloud, "StopVmInstance", &vm).unwrap();
    assert_eq!(state(&cloud, &vm), "Stopping", "until its host has let go");
    cloud.give_up_releases();
    assert_eq!(state(&cloud, &vm), "Stopped");
    let hosts: Vec<_> = cloud.nics(&vm).iter().map(|nic| nic.host_uuid).collect();
    assert_eq!((get(&cloud, &vm).host_uuid, hosts), (None, vec![None]));
    assert_eq!(shown(&cloud, &vm, "lastHostUuid"), json!(host));
    assert_eq!(addresses(&cloud, &vm), before);
    call(&cloud, "StopVmInstance", &vm).expect("it is stopped already");
    call(&cloud, "StartVmInstance", &vm).unwrap();
    assert_eq!(get(&cloud, &vm).host_uuid, Some(host.parse().unwrap()), "where it was");
    assert_eq!(addresses(&cloud, &vm), before);
    assert_eq!(cloud.nics(&vm)[0].host_uuid, Some(host.parse().unwrap()));
}

#[tokio::test]
async fn an_instance_starts_elsewhere_only_once_its_host_has_let_go() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let [first, second] = &fixture.hosts;
    let vm = cloud.made("CreateVmInstance", on("a", &l3, first));
    call(&cloud, "StopVmInstance", &vm).unwrap();
    cloud.tell(first);
    let there = json!({"uuid": vm, "hostUuid": second});
    let (code, field, text) = cloud.refusal("StartVmInstance", there.clone());
    assert_eq!((code, field.as_deref()), (Code::InUse, Some("hostUuid")), "{text}");
    assert!(text.contains("h1") && text.contains("has not confirmed"), "{text}");
    cloud.lost(first);
    let (code, _, text) = cloud.refusal("StartVmInstance", json!({"uuid": vm}));
    assert_eq!(code, Code::InUse, "its host may still run it: {text}");
    assert!(text.contains("which is away"), "{text}");
    acknowledged(&mut cloud, &[first], 0).await;
    cloud.call("StartVmInstance", there).unwrap();
    assert_eq!(get(&cloud, &vm).host_uuid, Some(second.parse().unwrap()));
}

#[test]
fn an_instance_starts_at_once_where_it_was_and_is_made_anew_there() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (l3, host) = (cloud.l3(&fixture, "red"), &fixture.hosts[0]);
    let vm = cloud.made("CreateVmInstance", on("a", &l3, host));
    let generation = get(&cloud, &vm).generation;
    call(&cloud, "StopVmInstance", &vm).unwrap();
    call(&cloud, "StartVmInstance", &vm).unwrap();
    assert_eq!(get(&cloud, &vm).generation, generation + 1, "told at once or one by one");
    assert_eq!(cloud.snapshot().total(Kind::Release), 0, "its place is its own again");
    call(&cloud, "StopVmInstance", &vm).unwrap();
    assert_eq!(cloud.snapshot().total(Kind::Release), 1);
}

#[test]
fn a_dead_hosts_instance_starts_elsewhere_with_its_addresses() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let [first, second] = &fixture.hosts;
    let vm = cloud.made("CreateVmInstance", on("a", &l3, first));
    let before = addresses(&cloud, &vm);
    cloud.lost(first);
    assert_eq!(state(&cloud, &vm), "Unknown");
    let (code, _, text) = cloud.refusal("StartVmInstance", json!({"uuid": vm}));
    assert_eq!(code, Code::OperationFailed, "{text}");
    assert!(text.contains("is Unknown") && text.contains("Created or Stopping"), "{text}");
    cloud.call("DeleteHost", json!({"uuid": first, "deleteMode": "Enforcing"})).unwrap();
    // Nobody waits for a host that is deleted.
    cloud.give_up_releases();
    assert_eq!(state(&cloud, &vm), "Stopped");
    call(&cloud, "StartVmInstance", &vm).unwrap();
    assert_eq!(get(&cloud, &vm).host_uuid, Some(second.parse().unwrap()));
    assert_eq!(addresses(&cloud, &vm), before);
}

#[test]
fn a_reboot_is_a_new_generation_where_it_runs() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let (l3, host) = (cloud.l3(&fixture, "red"), &fixture.hosts[0]);
    let vm = cloud.made("CreateVmInstance", on("a", &l3, host));
    let params = json!({"uuid": vm});
    let done = cloud.run("RebootVmInstance", params.clone(), &[], None).unwrap();
    assert!(done.hosts.contains(&host.parse().unwrap()), "success waits for its host");
    assert_eq!(get(&cloud, &vm).generation, 1);
    cloud.lost(host);
    assert_eq!(cloud.refusal("RebootVmInstance", params.clone()).0, Code::OperationFailed);
    call(&cloud, "StopVmInstance", &vm).unwrap();
    assert_eq!(cloud.refusal("RebootVmInstance", params).0, Code::OperationFailed);
}

#[test]
fn a_destroyed_instance_gives_its_addresses_back_and_can_be_recovered() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let tags = [format!("staticIp::{l3}::10.0.0.11")];
    let made = cloud.call_tagged("CreateVmInstance", vm("a", &l3), &tags).unwrap();
    let a = made.subject.unwrap().1.simple().to_string();
    let before = addresses(&cloud, &a);
    call(&cloud, "DestroyVmInstance", &a).unwrap();
    call(&cloud, "DestroyVmInstance", &a).expect("it is destroyed already");
    assert_eq!(state(&cloud, &a), "Destroying");
    for wrong in ["StartVmInstance", "StopVmInstance", "RebootVmInstance"] {
        assert_eq!(cloud.refusal(wrong, json!({"uuid": a})).0, Code::OperationFailed, "{wrong}");
    }
    cloud.give_up_releases();
    assert_eq!(state(&cloud, &a), "Destroyed");
    let nic = cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3, "ip": "10.0.0.11"}));
    let (code, _, text) = cloud.refusal("RecoverVmInstance", json!({"uuid": a}));
    assert_eq!(code, Code::IpExhausted, "its address was chosen, and is another's: {text}");
    cloud.call("DeleteVmNic", json!({"uuid": nic})).unwrap();
    cloud.give_up_releases();
    call(&cloud, "RecoverVmInstance", &a).unwrap();
    assert_eq!(state(&cloud, &a), "Stopped");
    assert_eq!(addresses(&cloud, &a), before);
    call(&cloud, "StartVmInstance", &a).unwrap();
}

#[test]
fn an_instance_is_forgotten_once_it_is_destroyed() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let a = cloud.made("CreateVmInstance", vm("a", &l3));
    let (code, _, text) = cloud.refusal("ExpungeVmInstance", json!({"uuid": a}));
    assert_eq!(code, Code::OperationFailed, "{text}");
    assert!(text.contains("Destroying or Destroyed"), "{text}");
    call(&cloud, "DestroyVmInstance", &a).unwrap();
    call(&cloud, "ExpungeVmInstance", &a).unwrap();
    cloud.give_up_releases();
    for kind in [Kind::VmInstance, Kind::VmNic, Kind::UsedIp] {
        assert_eq!(cloud.snapshot().total(kind), 0, "{kind:?}");
    }
}

#[test]
fn a_destroyed_instance_does_not_count_against_a_quota() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let tenant = crate::harness::tenant(&cloud, 0xa);
    let l3 = cloud.l3(&fixture, "red");
    cloud.give(Kind::L3Network, &l3, tenant.account().unwrap());
    let quota = Kind::VmInstance.def().quota.unwrap().default;
    let send = |message: &str, params: Value| {
        let done = cloud.send(tenant, vec![request(message, params)])?;
        Ok::<_, Error>(done.reply.subject.map(|(_, uuid)| uuid.simple().to_string()))
    };
    cloud.made("AddIpRange", crate::harness::range(&l3, "10.0.0.20", "10.0.0.90"));
    let mut last = String::new();
    for _ in 0..quota {
        last = send("CreateVmInstance", vm("a", &l3)).unwrap().unwrap();
    }
    assert_eq!(send("CreateVmInstance", vm("a", &l3)).unwrap_err().code, Code::QuotaExceeded);
    send("DestroyVmInstance", json!({"uuid": last})).unwrap();
    send("CreateVmInstance", vm("a", &l3)).unwrap();
    let recover = send("RecoverVmInstance", json!({"uuid": last}));
    assert_eq!(recover.unwrap_err().code, Code::QuotaExceeded, "a place that is taken by now");
    cloud.send(ADMINISTRATOR, vec![request("RecoverVmInstance", json!({"uuid": last}))]).unwrap();
}

#[test]
fn a_strategy_says_whether_an_instance_starts() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    for host in &fixture.hosts {
        cloud.lost(host);
    }
    let made = |cloud: &Cloud, strategy: &str| {
        let params = json!({"name": "a", "l3NetworkUuids": [l3], "strategy": strategy});
        cloud.made("CreateVmInstance", params)
    };
    for (strategy, expected) in [("JustCreate", "Created"), ("CreateStopped", "Stopped")] {
        let vm = made(&cloud, strategy);
        assert_eq!(state(&cloud, &vm), expected);
        assert_eq!(addresses(&cloud, &vm).len(), 1, "it has its NIC");
        assert_eq!(cloud.refusal("StartVmInstance", json!({"uuid": vm})).0, Code::NoHost);
        cloud.acked(&fixture.hosts[1], 0);
        call(&cloud, "StartVmInstance", &vm).unwrap();
        assert_eq!(get(&cloud, &vm).phase, Phase::Live);
        assert_eq!(get(&cloud, &vm).host_uuid, Some(fixture.hosts[1].parse().unwrap()));
        cloud.lost(&fixture.hosts[1]);
    }
    let now = json!({"name": "a", "l3NetworkUuids": [l3], "strategy": "InstantStart"});
    assert_eq!(cloud.refusal("CreateVmInstance", now).0, Code::NoHost);
}

#[test]
fn what_no_driver_can_do_is_refused_with_the_reason() {
    let (cloud, fixture): (Cloud, Fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let a = cloud.made("CreateVmInstance", vm("a", &l3));
    let migrate = json!({"vmInstanceUuid": a, "hostUuid": fixture.hosts[1]});
    for (message, params, why) in [
        ("PauseVmInstance", json!({"uuid": a}), "cannot freeze"),
        ("ResumeVmInstance", json!({"uuid": a}), "cannot freeze"),
        ("MigrateVm", migrate, "StartVmInstance with hostUuid"),
    ] {
        let (code, _, text) = cloud.refusal(message, params);
        assert_eq!(code, Code::OperationFailed, "{text}");
        assert!(text.contains(why), "{text}");
    }
}

#[tokio::test]
async fn a_destroyed_instance_is_forgotten_after_a_day_that_has_passed() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let [gone, stays] = ["a", "b"].map(|name| cloud.made("CreateVmInstance", vm(name, &l3)));
    for vm in [&gone, &stays] {
        call(&cloud, "DestroyVmInstance", vm).unwrap();
    }
    call(&cloud, "RecoverVmInstance", &stays).unwrap();
    left(&cloud, Steady::new(|| Timestamp(999 + 1_000 * DAY)), 2, &[]).await;
    // Somebody sets the clock a year ahead while the server runs.
    let ahead = || Timestamp(366_000 * DAY);
    left(&cloud, Steady::since(Timestamp(1_000), ahead), 2, &[]).await;
    left(&cloud, Steady::new(|| Timestamp(1_000 + 1_000 * DAY)), 1, &[]).await;
    assert_eq!(state(&cloud, &stays), "Stopping");
}

/// In seconds; the harness's clock stands at one second.
const DAY: i64 = 86_400;

/// Expunges by this clock until so many instances are left, while settings are changed: each is given
/// as its name, the instance if it is for one, and its value.
async fn left(cloud: &Cloud, clock: Steady, left: u64, settings: &[(&str, Option<&str>, &str)]) {
    let (_board, reports) = watch::channel(cloud.board.clone());
    let stop = CancellationToken::new();
    let run = expunger::run(cloud.store.clone(), reports, clock, stop.clone());
    let until = async {
        // Time for a wrong one to go: the first look comes at once.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        settings.iter().for_each(|(name, of, value)| set(cloud, name, *of, value));
        while cloud.snapshot().total(Kind::VmInstance) != left {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stop.cancel();
    };
    let both = async { tokio::join!(run, until) };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("expunged");
}

/// Changes a setting of instances, of all or of one.
fn set(cloud: &Cloud, name: &str, of: Option<&str>, value: &str) {
    let mut params = json!({"category": "vm", "name": name, "value": value});
    let message = match of {
        Some(vm) => {
            params["resourceUuid"] = vm.into();
            "UpdateResourceConfig"
        }
        None => "UpdateGlobalConfig",
    };
    cloud.call(message, params).unwrap();
}

#[test]
fn with_the_policy_direct_an_instance_is_gone_at_once() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let [direct, delayed] = ["a", "b"].map(|name| cloud.made("CreateVmInstance", vm(name, &l3)));
    set(&cloud, "deletionPolicy", Some(&direct), "Direct");
    let host = get(&cloud, &direct).host_uuid;
    for vm in [&direct, &delayed] {
        call(&cloud, "DestroyVmInstance", vm).unwrap();
    }
    assert_eq!(cloud.get(direct.parse::<Id<VmInstance>>().unwrap()), None);
    assert_eq!(get(&cloud, &delayed).phase, Phase::Destroyed, "the other has another policy");
    let (code, _, text) = cloud.refusal("RecoverVmInstance", json!({"uuid": direct}));
    assert_eq!(code, Code::NotFound, "{text}");
    let place = Claim::Running(host.unwrap(), direct.parse().unwrap());
    let holder = cloud.snapshot().holder(&place).map(|(kind, _)| kind);
    assert_eq!(holder, Some(Kind::Release), "its host has to let go all the same");
    set(&cloud, "deletionPolicy", None, "Direct");
    let third = cloud.made("CreateVmInstance", vm("c", &l3));
    call(&cloud, "DestroyVmInstance", &third).unwrap();
    assert_eq!(cloud.snapshot().total(Kind::VmInstance), 1);
}

#[tokio::test]
async fn with_the_policy_never_an_instance_stays_until_it_is_expunged_by_hand() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let [kept, gone] = ["a", "b"].map(|name| cloud.made("CreateVmInstance", vm(name, &l3)));
    set(&cloud, "deletionPolicy", None, "Never");
    set(&cloud, "deletionPolicy", Some(&gone), "Delay");
    for vm in [&kept, &gone] {
        call(&cloud, "DestroyVmInstance", vm).unwrap();
    }
    left(&cloud, Steady::new(|| Timestamp(1_000_000 * DAY)), 1, &[]).await;
    assert_eq!(get(&cloud, &kept).phase, Phase::Destroyed);
    call(&cloud, "ExpungeVmInstance", &kept).unwrap();
    assert_eq!(cloud.snapshot().total(Kind::VmInstance), 0);
}

#[tokio::test]
async fn the_period_is_a_setting_of_all_and_of_one_and_a_change_counts_at_once() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let [soon, later] = ["a", "b"].map(|name| cloud.made("CreateVmInstance", vm(name, &l3)));
    for vm in [&soon, &later] {
        call(&cloud, "DestroyVmInstance", vm).unwrap();
    }
    let after_a_minute = || Steady::new(|| Timestamp(61_000));
    // The interval is an hour, and nobody waits for its end.
    left(&cloud, after_a_minute(), 1, &[("expungePeriod", Some(&soon), "60")]).await;
    assert_eq!(get(&cloud, &later).phase, Phase::Destroyed);
    let to_both = [("expungePeriod", Some(&later[..]), "61"), ("expungePeriod", None, "60")];
    set(&cloud, to_both[0].0, to_both[0].1, to_both[0].2);
    left(&cloud, after_a_minute(), 1, &to_both[1..]).await;
    cloud
        .call(
            "DeleteResourceConfig",
            json!({"category": "vm", "name": "expungePeriod", "resourceUuid": later}),
        )
        .unwrap();
    left(&cloud, after_a_minute(), 0, &[]).await;
}

#[tokio::test]
async fn the_interval_is_a_setting() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    set(&cloud, "expungeInterval", None, "1");
    let a = cloud.made("CreateVmInstance", vm("a", &l3));
    call(&cloud, "DestroyVmInstance", &a).unwrap();
    // It is not due when it is looked for first, and no change wakes anybody.
    static LOOKS: AtomicI64 = AtomicI64::new(0);
    let clock = || Timestamp(1_000 + 1_000 * DAY * LOOKS.fetch_add(1, Ordering::Relaxed).min(1));
    // The clock of the machine alone: it is not that which is tried here.
    left(&cloud, Steady::since(Timestamp(i64::MAX), clock), 0, &[]).await;
}
