//! A host that is to be maintained is emptied: what moves, what waits, and what stands in the way.

use model::{
    Code, Id, Kind, Timestamp,
    resource::{
        host::{Host, HostMode},
        vm_instance::VmInstance,
    },
    status::HostStatus,
};
use netloom_control::{
    JobState,
    evacuation::{self, AT_ONCE, Done, Hope},
};
use serde_json::{Value, json};
use store::Read;

use crate::{
    harness::{ADMINISTRATOR, Cloud, Fixture, confirm, range},
    jobs::{command, drawn, job, jobs},
};

/// A round over all hosts.
async fn pass(cloud: &Cloud) -> Done {
    pass_with(cloud, Hope::None).await
}

async fn pass_with(cloud: &Cloud, hope: Hope) -> Done {
    let around = (Timestamp(1_000), &cloud.board, hope);
    evacuation::pass(&cloud.store, &cloud.operations, around).await.unwrap()
}

/// Rounds until nothing can be done without hosts, which then let go of all; and so on.
async fn to_the_end(cloud: &Cloud) {
    for _ in 0..20 {
        while pass(cloud).await == Done::Some {}
        if pass(cloud).await == Done::All {
            return;
        }
        cloud.give_up_releases();
    }
    panic!("it does not end");
}

/// Two hosts that answer, and as many instances on the first as are asked for.
fn with_instances(count: usize) -> (Cloud, Fixture, Vec<String>) {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    for host in &fixture.hosts {
        confirm(&mut cloud.board, host.parse().unwrap());
    }
    let l3 = cloud.l3(&fixture, "red");
    cloud.made("AddIpRange", range(&l3, "10.0.0.100", "10.0.0.200"));
    let made = |number| {
        let name = format!("vm-{number}");
        let params = json!({"name": name, "l3NetworkUuids": [l3], "hostUuid": fixture.hosts[0]});
        cloud.made("CreateVmInstance", params)
    };
    let vms = (0..count).map(made).collect();
    (cloud, fixture, vms)
}

fn change(fixture: &Fixture, event: &str) -> Value {
    json!({"uuid": fixture.hosts[0], "stateEvent": event})
}

fn mode(cloud: &Cloud, fixture: &Fixture) -> HostMode {
    cloud.get::<Host>(fixture.hosts[0].parse().unwrap()).unwrap().state
}

fn host_of(cloud: &Cloud, vm: &str) -> Option<String> {
    let vm = cloud.get::<VmInstance>(vm.parse().unwrap()).unwrap();
    vm.host_uuid.map(|host| host.to_string())
}

#[tokio::test]
async fn instances_go_to_another_host_with_their_addresses_once_the_old_one_has_let_go() {
    let (cloud, fixture, vms) = with_instances(2);
    let addresses = |vm: &String| {
        let nic = cloud.nics(vm).remove(0);
        (nic.mac, cloud.addresses(nic.uuid)[0].ip)
    };
    let before: Vec<_> = vms.iter().map(addresses).collect();
    let (jobs, board) = jobs(&cloud);
    let maintain = command(&cloud, "ChangeHostState", change(&fixture, "maintain"));
    jobs.submit(maintain, drawn(1), 60).await.unwrap();
    assert_eq!(mode(&cloud, &fixture), HostMode::PreMaintenance);
    while pass(&cloud).await == Done::Some {}
    assert!(vms.iter().all(|vm| host_of(&cloud, vm).is_none()), "taken off, and not started yet");
    let JobState::Processing(reasons) = jobs.state(&ADMINISTRATOR, job(1)).await else {
        panic!("it waits");
    };
    let waits = format!("instance vm-0 ({}) waits for host", vms[0]);
    assert!(reasons.iter().any(|reason| reason.starts_with(&waits)), "{reasons:?}");
    to_the_end(&cloud).await;
    assert_eq!(mode(&cloud, &fixture), HostMode::Maintenance);
    assert!(vms.iter().all(|vm| host_of(&cloud, vm).as_ref() == Some(&fixture.hosts[1])));
    assert_eq!(vms.iter().map(addresses).collect::<Vec<_>>(), before);
    board.send_modify(|board| board.revision = cloud.snapshot().revision());
    let state = jobs.state(&ADMINISTRATOR, job(1)).await;
    assert!(matches!(state, JobState::Done(_)), "{state:?}");
    assert_eq!(cloud.snapshot().total(Kind::Evacuation), 0);
}

#[tokio::test]
async fn a_big_host_is_emptied_some_instances_at_a_time_by_whichever_server_is_there() {
    let (cloud, fixture, vms) = with_instances(AT_ONCE + 3);
    cloud.call("ChangeHostState", change(&fixture, "maintain")).unwrap();
    while pass(&cloud).await == Done::Some {}
    let on_it = |cloud: &Cloud| {
        vms.iter().filter(|vm| host_of(cloud, vm).as_ref() == Some(&fixture.hosts[0])).count()
    };
    assert_eq!(on_it(&cloud), 3, "so many are on their way at a time");
    let mut other = cloud.second_server();
    other.board = cloud.board.clone();
    to_the_end(&other).await;
    assert_eq!((on_it(&other), mode(&other, &fixture)), (0, HostMode::Maintenance));
    let all_run = vms.iter().all(|vm| host_of(&other, vm).as_ref() == Some(&fixture.hosts[1]));
    assert!(all_run, "none was forgotten");
}

#[tokio::test]
async fn an_instance_that_fits_nowhere_stays_and_is_named_or_is_stopped_by_the_policy() {
    for policy in ["JustMigrate", "StopVmOnMigrationFailure"] {
        let (cloud, fixture, vms) = with_instances(1);
        let other = json!({"uuid": fixture.hosts[1], "stateEvent": "disable"});
        cloud.call("ChangeHostState", other).unwrap();
        let setting = json!({"category": "host", "name": "maintenancePolicy", "value": policy});
        cloud.call("UpdateGlobalConfig", setting).unwrap();
        let (jobs, board) = jobs(&cloud);
        let maintain = command(&cloud, "ChangeHostState", change(&fixture, "maintain"));
        jobs.submit(maintain, drawn(1), 60).await.unwrap();
        to_the_end(&cloud).await;
        board.send_modify(|board| board.revision = cloud.snapshot().revision());
        let state = jobs.state(&ADMINISTRATOR, job(1)).await;
        match policy {
            "JustMigrate" => {
                let JobState::Failed(error) = state else { panic!("{state:?}") };
                let named = format!("vm-0 ({})", vms[0]);
                assert!(error.message.contains(&named), "{error:?}");
                assert!(error.message.contains("h2: is disabled"), "{error:?}");
                assert_eq!(host_of(&cloud, &vms[0]).as_ref(), Some(&fixture.hosts[0]));
                assert_eq!(mode(&cloud, &fixture), HostMode::Enabled, "as it was");
            }
            _ => {
                assert!(matches!(state, JobState::Done(_)), "{state:?}");
                assert_eq!(host_of(&cloud, &vms[0]), None);
                assert_eq!(mode(&cloud, &fixture), HostMode::Maintenance);
            }
        }
    }
}

#[tokio::test]
async fn an_evacuation_that_is_ended_brings_what_is_on_its_way_to_its_end() {
    let (cloud, fixture, vms) = with_instances(AT_ONCE + 1);
    let (jobs, _board) = jobs(&cloud);
    let maintain = command(&cloud, "ChangeHostState", change(&fixture, "maintain"));
    jobs.submit(maintain, drawn(1), 60).await.unwrap();
    while pass(&cloud).await == Done::Some {}
    cloud.call("ChangeHostState", change(&fixture, "enable")).unwrap();
    let JobState::Failed(error) = jobs.state(&ADMINISTRATOR, job(1)).await else { panic!() };
    assert!(error.message.contains("stateEvent=enable has ended it"), "{error:?}");
    to_the_end(&cloud).await;
    assert_eq!(mode(&cloud, &fixture), HostMode::Enabled);
    assert!(vms.iter().all(|vm| host_of(&cloud, vm).is_some()), "all run somewhere");
}

#[tokio::test]
async fn who_starts_or_destroys_an_instance_on_its_way_is_not_overruled() {
    let (cloud, fixture, vms) = with_instances(2);
    cloud.call("ChangeHostState", change(&fixture, "maintain")).unwrap();
    while pass(&cloud).await == Done::Some {}
    cloud.give_up_releases();
    cloud.call("DestroyVmInstance", json!({"uuid": vms[0]})).unwrap();
    let start = json!({"uuid": vms[1], "hostUuid": fixture.hosts[1]});
    cloud.call("StartVmInstance", start).unwrap();
    let generation = |vm: &String| cloud.get::<VmInstance>(vm.parse().unwrap()).unwrap().generation;
    let before = generation(&vms[1]);
    to_the_end(&cloud).await;
    assert_eq!((host_of(&cloud, &vms[0]), generation(&vms[1])), (None, before));
    assert_eq!(mode(&cloud, &fixture), HostMode::Maintenance);
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_emptied_by_nobody() {
    let (mut cloud, fixture, _) = with_instances(1);
    let host: Id<Host> = fixture.hosts[0].parse().unwrap();
    cloud.board.put(host, HostStatus { heard: 1, ..HostStatus::default() });
    let (code, field, text) = cloud.refusal("ChangeHostState", change(&fixture, "maintain"));
    assert_eq!((code, field.as_deref()), (Code::InUse, Some("stateEvent")));
    assert!(text.contains("is not connected"), "{text}");
    let (cloud, fixture, _) = with_instances(0);
    cloud.call("ChangeHostState", change(&fixture, "maintain")).unwrap();
    assert_eq!(mode(&cloud, &fixture), HostMode::Maintenance, "an empty one at once");
}

#[tokio::test]
async fn a_second_wish_to_maintain_waits_for_the_same_and_a_deleted_host_ends_it() {
    let (mut cloud, fixture, vms) = with_instances(1);
    let (jobs, _board) = jobs(&cloud);
    for number in [1, 2] {
        let maintain = command(&cloud, "ChangeHostState", change(&fixture, "maintain"));
        jobs.submit(maintain, drawn(number), 60).await.unwrap();
    }
    while pass(&cloud).await == Done::Some {}
    for number in [1, 2] {
        let state = jobs.state(&ADMINISTRATOR, job(number)).await;
        assert!(matches!(state, JobState::Processing(_)), "{state:?}");
    }
    cloud.lost(&fixture.hosts[0]);
    let delete = json!({"uuid": fixture.hosts[0], "deleteMode": "Enforcing"});
    cloud.call("DeleteHost", delete).unwrap();
    assert_eq!(pass(&cloud).await, Done::All);
    assert_eq!(host_of(&cloud, &vms[0]), None, "its owner starts it elsewhere");
}

#[tokio::test]
async fn a_server_that_has_just_started_gives_nothing_up_before_hosts_are_back() {
    let (mut cloud, fixture, vms) = with_instances(1);
    cloud.call("ChangeHostState", change(&fixture, "maintain")).unwrap();
    let other: Id<Host> = fixture.hosts[1].parse().unwrap();
    cloud.board.put(other, HostStatus::default());
    assert_eq!(pass_with(&cloud, Hope::ComingBack).await, Done::Nothing);
    assert_eq!(mode(&cloud, &fixture), HostMode::PreMaintenance);
    assert_eq!(host_of(&cloud, &vms[0]).as_ref(), Some(&fixture.hosts[0]), "it goes on running");
    confirm(&mut cloud.board, other);
    to_the_end(&cloud).await;
    assert_eq!(mode(&cloud, &fixture), HostMode::Maintenance);
}
