//! Instances that are machines: what they need, and how they stand still.

use model::{
    Code, Id,
    resource::{
        image::RootFormat,
        vm_instance::{InstanceDriver, VmInstance},
    },
    status::HostStatus,
};
use netloom_control::inventory::{self, Observed};
use serde_json::{Value, json};
use store::Read;

use crate::harness::{Cloud, Fixture};

const MIB: u64 = 1 << 20;

fn image(cloud: &Cloud, url: &str, format: &str) -> String {
    cloud.made("AddImage", json!({"name": "debian", "url": url, "format": format}))
}

fn machine(cloud: &Cloud, fixture: &Fixture, image: &str) -> Value {
    let l3 = cloud.l3(fixture, "red");
    json!({"name": "vm", "l3NetworkUuids": [l3], "driver": "qemu", "imageUuid": image,
        "memorySize": 512 * MIB, "hostUuid": fixture.hosts[0]})
}

fn shown(cloud: &Cloud, vm: &str) -> Value {
    let (snapshot, id) = (cloud.snapshot(), vm.parse::<Id<VmInstance>>().unwrap());
    let record = snapshot.get(model::Kind::VmInstance, id.uuid()).unwrap();
    inventory::show(&record, &Observed::new(&snapshot, &cloud.board)).into()
}

/// Its host says that it is there.
fn is_there(cloud: &mut Cloud, host: &str, vm: &str) {
    let host = host.parse().unwrap();
    let mut status: HostStatus = cloud.board.status(host).clone();
    status.up.insert(vm.parse::<Id<VmInstance>>().unwrap().uuid());
    cloud.board.put(host, status);
}

#[test]
fn a_machine_starts_from_an_image_of_its_host() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let image = image(&cloud, "file:///debian/12.qcow2", "qcow2");
    let vm = cloud.made("CreateVmInstance", machine(&cloud, &fixture, &image));
    let row = cloud.get(vm.parse::<Id<VmInstance>>().unwrap()).unwrap();
    assert_eq!(row.driver, InstanceDriver::Qemu);
    assert_eq!(row.image_path.as_deref(), Some("debian/12.qcow2"));
    assert_eq!(row.image_format, Some(RootFormat::Qcow2));
    assert_eq!(shown(&cloud, &vm)["driver"], "qemu");
}

#[test]
fn what_a_machine_lacks_is_refused_by_field() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let right = machine(&cloud, &fixture, &image(&cloud, "file:///debian.img", "raw"));
    let refused = |field: &str, value: Value, expected: &str| {
        let mut params = right.clone();
        params[field] = value;
        let (code, seen, text) = cloud.refusal("CreateVmInstance", params);
        assert_eq!((code, seen.as_deref()), (Code::InvalidArgument, Some(field)), "{text}");
        assert!(text.contains(expected), "{text}");
    };
    refused("imageUuid", Value::Null, "is missing");
    refused("memorySize", Value::Null, "is missing");
    refused("memorySize", json!(15 * MIB), "is less than");
    for url in ["http://192.0.2.1/a.img", "file:///", "file:///../agent.key", "file:////etc/shadow"]
    {
        refused("imageUuid", json!(image(&cloud, url, "raw")), "its url");
    }
    refused("imageUuid", json!(image(&cloud, "file:///a.vmdk", "vmdk")), "raw, qcow2, kernel");
    let data = json!({"name": "data", "url": "file:///d.img", "format": "raw",
        "mediaType": "DataVolumeTemplate"});
    refused("imageUuid", json!(cloud.made("AddImage", data)), "is for further disks");
    cloud.made("CreateVmInstance", right.clone());
}

#[test]
fn a_machine_stands_still_and_goes_on_and_one_that_is_stopped_starts_running() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let image = image(&cloud, "file:///debian.img", "raw");
    let vm = cloud.made("CreateVmInstance", machine(&cloud, &fixture, &image));
    let of = json!({"uuid": vm});
    assert_eq!(cloud.refusal("PauseVmInstance", of.clone()).0, Code::OperationFailed);
    is_there(&mut cloud, &fixture.hosts[0], &vm);
    assert_eq!(shown(&cloud, &vm)["state"], "Running");
    assert_eq!(cloud.refusal("ResumeVmInstance", of.clone()).0, Code::OperationFailed);
    cloud.call("PauseVmInstance", of.clone()).unwrap();
    assert_eq!(shown(&cloud, &vm)["state"], "Paused");
    assert_eq!(cloud.refusal("RebootVmInstance", of.clone()).0, Code::OperationFailed);
    cloud.call("ResumeVmInstance", of.clone()).unwrap();
    assert_eq!(shown(&cloud, &vm)["state"], "Running");
    cloud.call("PauseVmInstance", of.clone()).unwrap();
    cloud.call("StopVmInstance", of.clone()).unwrap();
    let row = cloud.get(vm.parse::<Id<VmInstance>>().unwrap()).unwrap();
    assert!(!row.is_paused);
}

/// A host says that it has no QEMU.
fn lacks_qemu(cloud: &mut Cloud, host: &str) {
    let host = host.parse().unwrap();
    let mut status: HostStatus = cloud.board.status(host).clone();
    let why = "the host has no qemu-system-x86_64: install Debian's package there";
    status.lacking = std::sync::Arc::new([("qemu".to_owned(), why.to_owned())].into());
    cloud.board.put(host, status);
}

#[test]
fn machines_go_to_hosts_that_can_run_them_and_the_refusal_says_what_to_install() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let image = image(&cloud, "file:///debian/12.qcow2", "qcow2");
    let mut params = machine(&cloud, &fixture, &image);
    params.as_object_mut().unwrap().remove("hostUuid");
    lacks_qemu(&mut cloud, &fixture.hosts[0]);
    for name in ["a", "b", "c"] {
        params["name"] = json!(name);
        let vm = cloud.made("CreateVmInstance", params.clone());
        let row = cloud.get(vm.parse::<Id<VmInstance>>().unwrap()).unwrap();
        assert_eq!(row.host_uuid, Some(fixture.hosts[1].parse().unwrap()));
    }
    lacks_qemu(&mut cloud, &fixture.hosts[1]);
    params["name"] = json!("d");
    let (code, _, text) = cloud.refusal("CreateVmInstance", params.clone());
    assert_eq!(code, Code::NoHost);
    for part in ["h1: cannot run instances of driver qemu", "h2: cannot", "install Debian's"] {
        assert!(text.contains(part), "{text}");
    }
    // Namespaces need nothing.
    let netns = json!({"name": "e", "l3NetworkUuids": params["l3NetworkUuids"]});
    cloud.call("CreateVmInstance", netns).unwrap();
}
