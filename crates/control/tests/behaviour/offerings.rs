//! How large instances are to be and what they start from, as ZStack's clients say it.

use model::{Code, Id, resource::vm_instance::VmInstance};
use netloom_control::inventory::{self, Observed};
use serde_json::{Value, json};
use store::Read;

use crate::harness::{ADMINISTRATOR, Cloud};

const GIB: u64 = 1 << 30;

fn offering(cloud: &Cloud) -> String {
    let params = json!({"name": "small", "cpuNum": 2, "memorySize": 4 * GIB});
    cloud.made("CreateInstanceOffering", params)
}

fn image(cloud: &Cloud, media_type: &str) -> String {
    let params = json!({
        "name": "debian", "url": "http://192.0.2.1/debian.qcow2", "format": "qcow2",
        "mediaType": media_type, "backupStorageUuids": ["a"], "platform": "Linux",
    });
    cloud.made("AddImage", params)
}

fn shown(cloud: &Cloud, vm: &str) -> Value {
    let (snapshot, id) = (cloud.snapshot(), vm.parse::<Id<VmInstance>>().unwrap());
    let record = snapshot.get(model::Kind::VmInstance, id.uuid()).unwrap();
    inventory::show(&record, &Observed::new(&snapshot, &cloud.board)).into()
}

#[test]
fn an_instance_is_as_large_as_its_offering_unless_the_message_says_otherwise() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (l3, offering) = (cloud.l3(&fixture, "red"), offering(&cloud));
    let made = |more: Value| {
        let mut params =
            json!({"name": "a", "l3NetworkUuids": [l3], "instanceOfferingUuid": offering});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let vm = shown(&cloud, &cloud.made("CreateVmInstance", params));
        assert_eq!(vm["instanceOfferingUuid"], json!(offering));
        [&vm["cpuNum"], &vm["memorySize"], &vm["reservedMemorySize"]].map(Value::clone)
    };
    assert_eq!(made(json!({})), [json!(2), json!(4 * GIB), json!(0)]);
    assert_eq!(made(json!({"cpuNum": 8})), [json!(8), json!(4 * GIB), json!(0)]);
    let params = json!({
        "name": "a", "l3NetworkUuids": [l3], "memorySize": GIB, "reservedMemorySize": 2 * GIB,
    });
    let (code, field, _) = cloud.refusal("CreateVmInstance", params);
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("reservedMemorySize")));
}

#[test]
fn what_is_disabled_or_of_another_kind_makes_no_instance() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let (offering, root, data) = (
        offering(&cloud),
        image(&cloud, "RootVolumeTemplate"),
        image(&cloud, "DataVolumeTemplate"),
    );
    let with = |field: &str, uuid: &str| {
        let mut params = json!({"name": "a", "l3NetworkUuids": [l3]});
        params[field] = uuid.into();
        params
    };
    let refused = |field: &str, uuid: &str, expected: Code| {
        let (code, seen, text) = cloud.refusal("CreateVmInstance", with(field, uuid));
        assert_eq!((code, seen.as_deref()), (expected, Some(field)), "{text}");
    };
    refused("imageUuid", &data, Code::InvalidArgument);
    refused("imageUuid", &offering, Code::NotFound);
    for (message, uuid) in [("ChangeInstanceOfferingState", &offering), ("ChangeImageState", &root)]
    {
        cloud.call(message, json!({"uuid": uuid, "stateEvent": "disable"})).unwrap();
    }
    refused("instanceOfferingUuid", &offering, Code::OperationFailed);
    refused("imageUuid", &root, Code::OperationFailed);
    cloud.call("ChangeImageState", json!({"uuid": root, "stateEvent": "enable"})).unwrap();
    let vm = cloud.made("CreateVmInstance", with("imageUuid", &root));
    cloud.call("DeleteImage", json!({"uuid": root})).unwrap();
    assert_eq!(shown(&cloud, &vm)["imageUuid"], json!(root), "it was made from it");
}

#[test]
fn zstacks_clients_find_a_root_volume() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let image = image(&cloud, "RootVolumeTemplate");
    let params = json!({"name": "a", "l3NetworkUuids": [l3], "imageUuid": image});
    let vm = shown(&cloud, &cloud.made("CreateVmInstance", params));
    let [volume] = &vm["allVolumes"].as_array().unwrap()[..] else { panic!("{vm}") };
    assert_eq!(volume["uuid"], vm["rootVolumeUuid"]);
    assert_eq!((&volume["type"], &volume["vmInstanceUuid"]), (&json!("Root"), &vm["uuid"]));
    assert_eq!(volume["rootImageUuid"], json!(image));
    assert_eq!(vm["vmCdRoms"], json!([]));
}

#[test]
fn images_and_networks_that_fit_each_other_are_offered() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (l3, root) = (cloud.l3(&fixture, "red"), image(&cloud, "RootVolumeTemplate"));
    image(&cloud, "DataVolumeTemplate");
    let look =
        |params: Value| cloud.look(ADMINISTRATOR, "GetInterdependentL3NetworksImages", params);
    let uuids = |answer: Value| {
        let found = answer["inventories"].as_array().unwrap().clone();
        found.iter().map(|it| it["uuid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let zone = &fixture.zone;
    let images = look(json!({"zoneUuid": zone, "l3NetworkUuids": [l3]})).unwrap();
    assert_eq!(uuids(images), std::slice::from_ref(&root));
    let networks = look(json!({"zoneUuid": zone, "imageUuid": root})).unwrap();
    assert_eq!(uuids(networks), [l3]);
    let error = look(json!({"zoneUuid": zone})).unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (Code::InvalidArgument, Some("imageUuid")));
}
