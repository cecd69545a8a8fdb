//! Zones, clusters and hosts: whether they take new instances, and hosts that connect anew.

use model::{
    Code,
    resource::{
        cluster::Cluster,
        host::{Host, HostMode},
        zone::{EnableState, Zone},
    },
};
use serde_json::{Value, json};

use crate::harness::{Cloud, Fixture};

fn change(cloud: &Cloud, message: &str, uuid: &str, event: &str) {
    cloud.call(message, json!({"uuid": uuid, "stateEvent": event})).unwrap();
}

fn mode(cloud: &Cloud, host: &str) -> HostMode {
    cloud.get::<Host>(host.parse().unwrap()).unwrap().state
}

fn instance(l3: &str) -> Value {
    json!({"name": "vm", "l3NetworkUuids": [l3]})
}

/// Why no host takes an instance.
fn reason(cloud: &Cloud, l3: &str) -> String {
    let (code, _, text) = cloud.refusal("CreateVmInstance", instance(l3));
    assert_eq!(code, Code::NoHost, "{text}");
    text
}

#[test]
fn a_disabled_zone_takes_nothing_new_and_keeps_what_it_has() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let vm = cloud.made("CreateVmInstance", instance(&l3));
    change(&cloud, "ChangeZoneState", &fixture.zone, "disable");
    let zone = cloud.get::<Zone>(fixture.zone.parse().unwrap()).unwrap();
    let cluster = cloud.get::<Cluster>(fixture.cluster.parse().unwrap()).unwrap();
    assert_eq!((zone.state, cluster.state), (EnableState::Disabled, EnableState::Disabled));
    assert!(reason(&cloud, &l3).contains("is disabled"));
    assert_eq!(cloud.nics(&vm).len(), 1);
    change(&cloud, "ChangeZoneState", &fixture.zone, "enable");
    cloud.made("CreateVmInstance", instance(&l3));
}

#[test]
fn a_host_of_a_disabled_cluster_can_be_enabled_by_itself() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    change(&cloud, "ChangeClusterState", &fixture.cluster, "disable");
    change(&cloud, "ChangeHostState", &fixture.hosts[1], "enable");
    let vm = cloud.made("CreateVmInstance", instance(&l3));
    let host = cloud.nics(&vm)[0].host_uuid.unwrap();
    assert_eq!(host.to_string(), fixture.hosts[1]);
}

#[test]
fn a_cluster_leaves_hosts_in_maintenance_as_they_are() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    change(&cloud, "ChangeHostState", &fixture.hosts[0], "maintain");
    for event in ["disable", "enable"] {
        change(&cloud, "ChangeClusterState", &fixture.cluster, event);
    }
    let modes = fixture.hosts.each_ref().map(|host| mode(&cloud, host));
    assert_eq!(modes, [HostMode::Maintenance, HostMode::Enabled]);
}

#[test]
fn a_host_in_maintenance_takes_nothing_until_it_is_enabled() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    for host in &fixture.hosts {
        change(&cloud, "ChangeHostState", host, "maintain");
    }
    assert!(reason(&cloud, &l3).contains("is in maintenance"));
    change(&cloud, "ChangeHostState", &fixture.hosts[0], "enable");
    cloud.made("CreateVmInstance", instance(&l3));
}

#[test]
fn a_kvm_hosts_login_is_taken_and_not_kept() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let params = json!({
        "uuid": fixture.hosts[0], "name": "new", "managementIp": "172.30.0.7",
        "username": "root", "password": "hunter2", "sshPort": 2222,
    });
    cloud.call("UpdateKVMHost", params).unwrap();
    let host = cloud.get::<Host>(fixture.hosts[0].parse().unwrap()).unwrap();
    assert_eq!((host.name.as_str(), host.management_ip.to_string()), ("new", "172.30.0.7".into()));
    assert!(!format!("{:?}", cloud.contents()).contains("hunter2"));
}

#[test]
fn only_a_connected_host_is_told_to_connect_anew_and_the_job_waits_for_it() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let Fixture { hosts: [host, _], .. } = fixture;
    let done = cloud.run("ReconnectHost", json!({"uuid": host}), &[], None).unwrap();
    let uuid = host.parse::<model::Id<Host>>().unwrap();
    assert!(done.hosts.contains(&uuid) && done.objects.contains(&uuid.uuid()));
    assert_eq!(cloud.get::<Host>(uuid).unwrap().reconnects, 1);
    cloud.lost(&host);
    let (code, field, _) = cloud.refusal("ReconnectHost", json!({"uuid": host}));
    assert_eq!((code, field.as_deref()), (Code::OperationFailed, Some("uuid")));
}
