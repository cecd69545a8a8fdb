//! What was dropped at a NIC, and the rules that count there.

use serde_json::{Value, json};
use wire::question::{Answer, DropSeen, Drops, Question};

use crate::{
    explain::{World, guard},
    harness::ADMINISTRATOR,
    security_groups::group,
};

#[test]
fn drops_are_told_with_their_rule() {
    let mut world = World::new();
    let (rule, group) = guard(&mut world);
    let seen = DropSeen {
        at_ms: 2_000,
        count: 3,
        reason: "policy_denied".into(),
        meaning: "A rule denies it.".into(),
        is_from_port: false,
        what: format!("TCP {}:40000 > {}:80", world.ip(0), world.ip(1)),
        rule: Some(rule),
        group: Some(group),
        source: Some(world.ip(0)),
        destination: Some(world.ip(1)),
        protocol: Some(6),
        source_port: 40_000,
        port_or_type: 80,
    };
    let drops = Answer::Drops(Drops { frames: vec![seen], counted: 9, lost: 1, since_ms: 1_000 });
    let params = json!({"vmNicUuid": world.nics[1].uuid, "limit": 5});
    let told = world.call(world.owners[1], ("GetVmNicDrops", params), [Ok(drops.clone())]).unwrap();
    let drop = &told["drops"][0];
    assert_eq!(drop["rule"]["uuid"], json!(rule.simple().to_string()));
    assert_eq!(drop["securityGroup"]["name"], json!("secret-group"));
    assert_eq!((&drop["direction"], &drop["port"]), (&json!("ToNic"), &json!(80)));
    assert!(drop["what"].as_str().unwrap().contains("40000"), "{drop}");
    assert_eq!((&told["counted"], &told["lost"]), (&json!(9), &json!(1)));
    assert_eq!(told["host"], Value::Null);
    let asked = world.asked.lock().unwrap().clone();
    assert!(matches!(&asked[0].1, Question::DropsOf(drops) if drops.most == 5), "{asked:?}");
    // The other one has sent it, and is told that something of somebody's denied it.
    let params = json!({"vmNicUuid": world.nics[0].uuid});
    let told = world.call(world.owners[0], ("GetVmNicDrops", params), [Ok(drops)]).unwrap();
    assert_eq!(
        told["drops"][0]["securityGroup"]["words"],
        json!("another account's security group")
    );
    assert!(!told.to_string().contains("secret-group"), "{told}");
}

#[test]
fn the_rules_of_a_nic_are_in_the_order_in_which_they_are_asked() {
    let mut world = World::new();
    let (rule, first) = guard(&mut world);
    let open = group(&world.cloud, "open");
    let rules = json!([
        {"type": "Ingress", "protocol": "ALL", "remoteSecurityGroupUuid": first.simple().to_string()},
        {"type": "Egress", "protocol": "UDP", "dstPortRange": "53", "state": "Disabled"},
    ]);
    world
        .cloud
        .call("AddSecurityGroupRule", json!({"securityGroupUuid": open, "rules": rules}))
        .unwrap();
    let nic = world.nics[1].uuid;
    let join = json!({"securityGroupUuid": open, "vmNicUuids": [nic]});
    world.cloud.call("AddVmNicToSecurityGroup", join).unwrap();
    let read = |caller| {
        world.cloud.look(caller, "GetVmNicSecurityRules", json!({"vmNicUuid": nic})).unwrap()
    };
    let told = read(ADMINISTRATOR);
    let groups: Vec<_> =
        told["securityGroups"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(groups, ["open", "secret-group"], "that of an administrator is asked first");
    let ingress = told["ingress"]["rules"].as_array().unwrap();
    let order: Vec<_> = ingress
        .iter()
        .map(|it| (it["securityGroup"]["name"].as_str().unwrap(), it["priority"].as_u64().unwrap()))
        .collect();
    let (own, other) = ("open", "secret-group");
    assert_eq!(order, [(own, 0), (own, 0), (own, 1), (other, 0), (other, 0), (other, 1)]);
    assert_eq!(ingress[5]["uuid"], json!(rule.simple().to_string()));
    assert_eq!(ingress[2]["remote"]["name"], json!("secret-group"));
    assert_eq!(ingress[2]["remote"]["memberCount"], json!(1));
    assert_eq!(
        (&told["ingress"]["policy"], &told["ingress"]["elseAction"]),
        (&json!("DENY"), &json!("DROP"))
    );
    assert_eq!(
        (&told["egress"]["policy"], &told["egress"]["elseAction"]),
        (&json!("ALLOW"), &json!("ACCEPT"))
    );
    let egress = told["egress"]["rules"].as_array().unwrap();
    assert_eq!(egress[2]["passedOver"], json!("it is disabled"));

    // The administrator's group is there, and its rules are not told.
    let told = read(world.owners[1]);
    let whose: Vec<_> = told["securityGroups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["words"].as_str().unwrap())
        .collect();
    assert_eq!(whose, ["another account's security group", "security group secret-group"]);
    let ingress = told["ingress"]["rules"].as_array().unwrap();
    assert_eq!(ingress[0]["words"], json!("rules of another account's security group"));
    assert!(
        !told.to_string().contains("\"open\"") && !told.to_string().contains(&open),
        "{told:#}"
    );

    // In no group: as the setting says.
    let nic = world.nics[0].uuid;
    let read = || {
        world.cloud.look(ADMINISTRATOR, "GetVmNicSecurityRules", json!({"vmNicUuid": nic})).unwrap()
    };
    assert_eq!(read()["ingress"]["elseAction"], json!("ACCEPT"));
    let close = json!({"category": "securityGroup", "name": "nic.withoutGroup", "value": "Closed"});
    world.cloud.call("UpdateGlobalConfig", close).unwrap();
    assert_eq!(read()["egress"]["elseAction"], json!("DROP"));
}
