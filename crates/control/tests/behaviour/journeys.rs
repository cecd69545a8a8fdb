//! Machines that move to another host while they run.

use std::{sync::Arc, time::Duration};

use model::{
    Claim, Code, Id, Kind, Timestamp,
    resource::{host::Host, host::HostMode, vm_instance::VmInstance},
    status::HostStatus,
};
use netloom_control::{
    self as control, JobState,
    evacuation::{self, Hope},
    steady::Steady,
};
use serde_json::{Value, json};
use store::Read;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    harness::{ADMINISTRATOR, Cloud, Fixture, confirm},
    jobs::{command, drawn, job, jobs},
};

/// A machine that runs on the first of two hosts.
fn running() -> (Cloud, Fixture, String) {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    for host in &fixture.hosts {
        confirm(&mut cloud.board, host.parse().unwrap());
    }
    let image = json!({"name": "debian", "url": "file:///debian.qcow2", "format": "qcow2"});
    let (image, l3) = (cloud.made("AddImage", image), cloud.l3(&fixture, "red"));
    let params = json!({"name": "vm", "l3NetworkUuids": [l3], "driver": "qemu", "imageUuid": image,
        "memorySize": 512 << 20, "hostUuid": fixture.hosts[0]});
    let vm = cloud.made("CreateVmInstance", params);
    says(&mut cloud, &fixture.hosts[0], |status| _ = status.up.insert(id(&vm).uuid()));
    (cloud, fixture, vm)
}

fn id(vm: &str) -> Id<VmInstance> {
    vm.parse().unwrap()
}

/// A host reports.
fn says(cloud: &mut Cloud, host: &str, what: impl FnOnce(&mut HostStatus)) {
    let host: Id<Host> = host.parse().unwrap();
    let mut status = cloud.board.status(host).clone();
    what(&mut status);
    cloud.board.put(host, status);
}

fn get(cloud: &Cloud, vm: &str) -> VmInstance {
    cloud.get(id(vm)).unwrap()
}

fn to(vm: &str, host: &str) -> Value {
    json!({"vmInstanceUuid": vm, "hostUuid": host})
}

fn hosts(cloud: &Cloud, vm: &str) -> [Option<String>; 2] {
    let found = get(cloud, vm);
    let nic = cloud.nics(vm).remove(0);
    assert_eq!((nic.host_uuid, nic.moves_to()), (found.host_uuid, found.moves_to()));
    [found.host_uuid, found.moves_to()].map(|host| host.map(|host| host.to_string()))
}

fn holder(cloud: &Cloud, host: &str, vm: &str) -> Option<Kind> {
    let place = Claim::Running(host.parse().unwrap(), id(vm));
    cloud.snapshot().holder(&place).map(|(kind, _)| kind)
}

/// The server follows the board until it has looked at it twice.
async fn followed(cloud: &Cloud, vm: &str, is_over: bool) {
    let (board, reports) = watch::channel(cloud.board.clone());
    let (stop, clock) = (CancellationToken::new(), Steady::new(|| Timestamp(7)));
    let mover = control::mover::run(cloud.store.clone(), reports, clock, stop.clone());
    let drive = async {
        let ends = async {
            while get(cloud, vm).moves_to().is_some() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if is_over {
            tokio::time::timeout(Duration::from_secs(10), ends).await.expect("it is over");
        } else {
            tokio::task::yield_now().await;
            board.send_replace(cloud.board.clone());
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    tokio::join!(mover, drive);
}

#[tokio::test]
async fn a_machine_is_where_it_moves_to_once_that_host_says_so() {
    let (mut cloud, fixture, vm) = running();
    let [first, second] = fixture.hosts.clone();
    let done = cloud.run("MigrateVm", to(&vm, &second), &[], None).unwrap();
    assert_eq!(done.hosts.len(), 2, "both hosts have to act");
    let both = [Some(first.clone()), Some(second.clone())];
    assert_eq!(hosts(&cloud, &vm), both);
    for host in [&first, &second] {
        assert_eq!(holder(&cloud, host, &vm), Some(Kind::VmInstance), "it has a place on both");
    }
    cloud.call("MigrateVm", to(&vm, &second)).expect("it is on its way there");
    assert_eq!(cloud.refusal("MigrateVm", to(&vm, &first)).0, Code::InUse);
    for message in ["RebootVmInstance", "PauseVmInstance"] {
        let (code, _, text) = cloud.refusal(message, json!({"uuid": vm}));
        assert!(code == Code::InUse && text.contains("is being moved"), "{message}: {text}");
    }

    let number = get(&cloud, &vm).move_number;
    says(&mut cloud, &second, |status| _ = status.arrived.insert(number + 1));
    followed(&cloud, &vm, false).await;
    assert_eq!(hosts(&cloud, &vm), both, "that was another move");
    says(&mut cloud, &first, |status| _ = status.arrived.insert(number));
    followed(&cloud, &vm, false).await;
    assert_eq!(hosts(&cloud, &vm), both, "a host speaks only for what comes to it");
    says(&mut cloud, &second, |status| _ = status.arrived.insert(number));
    followed(&cloud, &vm, true).await;
    assert_eq!(hosts(&cloud, &vm), [Some(second.clone()), None]);
    assert_eq!(holder(&cloud, &first, &vm), Some(Kind::Release), "until it has let go");
    says(&mut cloud, &second, |status| _ = status.up.insert(id(&vm).uuid()));
    let (code, _, text) = cloud.refusal("MigrateVm", to(&vm, &first));
    assert!(code == Code::InUse && text.contains("has not confirmed"), "{text}");
    cloud.give_up_releases();
    cloud.call("MigrateVm", to(&vm, &first)).unwrap();
}

#[tokio::test]
async fn a_move_that_fails_leaves_it_where_it_is_and_its_job_says_why() {
    let (mut cloud, fixture, vm) = running();
    let [first, second] = fixture.hosts.clone();
    let (jobs, _) = jobs(&cloud);
    let migrate = command(&cloud, "MigrateVm", to(&vm, &second));
    jobs.submit(migrate, drawn(1), 60).await.unwrap();
    let state = jobs.state(&ADMINISTRATOR, job(1)).await;
    assert!(matches!(state, JobState::Processing(_)), "{state:?}");
    let number = get(&cloud, &vm).move_number;
    let why: Arc<str> = "it is full".into();
    says(&mut cloud, &second, |s| _ = s.given_up.insert(number, Arc::clone(&why)));
    followed(&cloud, &vm, false).await;
    assert_eq!(get(&cloud, &vm).moves_to().map(|to| to.to_string()), Some(second.clone()));
    says(&mut cloud, &first, |status| _ = status.given_up.insert(number, why));
    followed(&cloud, &vm, true).await;
    assert_eq!(hosts(&cloud, &vm), [Some(first), None]);
    assert_eq!(holder(&cloud, &second, &vm), Some(Kind::Release), "until it has let go");
    let JobState::Failed(error) = jobs.state(&ADMINISTRATOR, job(1)).await else { panic!() };
    assert!(error.message.contains("goes on: it is full"), "{error}");
}

#[test]
fn what_cannot_be_moved_is_refused_and_a_stop_ends_the_move() {
    let (mut cloud, fixture, vm) = running();
    let [first, second] = fixture.hosts.clone();
    let (code, field, _) = cloud.refusal("MigrateVm", to(&vm, &first));
    assert_eq!((code, field.as_deref()), (Code::OperationFailed, Some("hostUuid")));
    let nic = cloud.nics(&vm).remove(0).uuid;
    let routes = |prefixes: &[&str]| json!({"vmNicUuid": nic, "prefixes": prefixes});
    cloud.call("SetVmNicAllowedPrefixes", routes(&["192.168.0.0/24"])).unwrap();
    let (_, _, text) = cloud.refusal("MigrateVm", to(&vm, &second));
    assert!(text.contains("prefixes") && text.contains("StopVmInstance"), "{text}");
    cloud.call("SetVmNicAllowedPrefixes", routes(&[])).unwrap();
    cloud.lost(&second);
    assert_eq!(cloud.refusal("MigrateVm", json!({"vmInstanceUuid": vm})).0, Code::NoHost);
    cloud.acked(&second, 0);
    cloud.call("MigrateVm", json!({"vmInstanceUuid": vm})).expect("to the only other one");
    cloud.call("StopVmInstance", json!({"uuid": vm})).unwrap();
    assert_eq!(hosts(&cloud, &vm), [None, None]);
    for host in [&first, &second] {
        assert_eq!(holder(&cloud, host, &vm), Some(Kind::Release));
    }
    cloud.give_up_releases();
    cloud.call("StartVmInstance", json!({"uuid": vm, "hostUuid": second})).unwrap();
    assert_eq!(hosts(&cloud, &vm), [Some(second), None]);
}

#[tokio::test]
async fn a_host_is_emptied_of_machines_while_they_run_and_by_a_stop_if_that_fails() {
    for fails in [false, true] {
        let (mut cloud, fixture, vm) = running();
        let [first, second] = fixture.hosts.clone();
        let maintain = json!({"uuid": first, "stateEvent": "maintain"});
        cloud.call("ChangeHostState", maintain).unwrap();
        let pass = async |cloud: &Cloud| {
            let around = (Timestamp(1_000), &cloud.board, Hope::None);
            evacuation::pass(&cloud.store, &cloud.operations, around).await.unwrap()
        };
        pass(&cloud).await;
        assert_eq!(hosts(&cloud, &vm), [Some(first.clone()), Some(second.clone())]);
        pass(&cloud).await;
        assert!(get(&cloud, &vm).moves_to().is_some(), "it takes its time");
        let number = get(&cloud, &vm).move_number;
        match fails {
            true => says(&mut cloud, &first, |s| _ = s.given_up.insert(number, "full".into())),
            false => says(&mut cloud, &second, |s| _ = s.arrived.insert(number)),
        }
        followed(&cloud, &vm, true).await;
        for _ in 0..4 {
            pass(&cloud).await;
            cloud.give_up_releases();
        }
        assert_eq!(hosts(&cloud, &vm), [Some(second), None]);
        assert_eq!(get(&cloud, &vm).generation, u32::from(fails), "started anew or not");
        let host = cloud.get::<Host>(first.parse().unwrap()).unwrap();
        assert_eq!(host.state, HostMode::Maintenance);
    }
}
