//! Brings the server from one case to the next by the calls that a user would make: what differs is
//! added, deleted, changed or put into another order, and everything else stays.

use lab::wait;
use netloom_tests::{LIMIT, TestLab, networks, rest::Rest};
use serde_json::{Value, json};
use wire::policy::{Action, Way};

use crate::describe::{
    GROUPS, ICMP, ICMPV6, NAMES, Nic, Otherwise, Q, Remote, Rule, S, T, TCP, UDP, World, address,
};

const LETTERS: [&str; GROUPS] = ["a", "b", "c", "d", "s", "t", "q"];

/// A rule that there is.
type Known = (String, Rule);

/// The server, and what it was told.
pub(crate) struct Live {
    rest: Rest,
    l3: String,
    groups: Vec<String>,
    /// The list that rules may name.
    list: String,
    /// The instances and their NICs.
    nics: Vec<(String, String)>,
    tags: Vec<String>,
    /// The rules of each group beside the default ones, in their order.
    rules: Vec<Vec<Known>>,
    world: World,
}

impl Live {
    /// Makes a network with groups, and the instances.
    pub(crate) fn make(lab: &TestLab) -> Self {
        let rest = lab.rest();
        let pool = rest.all("/l2-networks/vxlan-pool")[0]["uuid"].clone();
        let l2 = rest.made("/l2-networks/vxlan", &json!({"name": "cases", "poolUuid": pool}));
        let l3 = networks::l3(&rest, "cases", &l2, 6);
        networks::groups(&rest, &l3);
        for (number, name) in NAMES.iter().enumerate() {
            let host = if number < NAMES.len() / 2 { "h1" } else { "h2" };
            let addresses = [false, true].map(|is_v6| address(number, is_v6));
            let made = rest.create_vm(name, (&l3, host), &addresses);
            assert_eq!(made.status, 200, "{made:?}");
        }
        let nic = |name: &&str| {
            let vm = rest.named("/vm-instances", name);
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&vm["uuid"]), text(&vm["vmNics"][0]["uuid"]))
        };
        let nics = NAMES.iter().map(nic).collect();
        let group = |number: usize| {
            let mut params = json!({"name": LETTERS[number]});
            if [S, T].contains(&number) {
                params["isStateless"] = true.into();
            }
            if number == Q {
                params["memberQuery"] = "case=found".into();
            }
            rest.made("/security-groups", &params)
        };
        let groups = (0..GROUPS).map(group).collect();
        let list = rest.made("/address-groups", &json!({"name": "list"}));
        let tags = vec![String::new(); NAMES.len()];
        let rules = vec![Vec::new(); GROUPS];
        Self { rest, l3, groups, list, nics, tags, rules, world: World::default() }
    }

    /// What is there is `world` from now on, on all hosts.
    pub(crate) fn become_as(&mut self, world: &World) {
        if self.world.is_closed != world.is_closed {
            let value = if world.is_closed { "Closed" } else { "Open" };
            let path = format!(
                "/resource-configurations/securityGroup/nic.withoutGroup/{}/actions",
                self.l3
            );
            self.put(&path, &json!({"updateResourceConfig": {"value": value}}));
        }
        if self.world.listed != world.listed {
            let path = format!("/address-groups/{}/actions", self.list);
            self.put(&path, &json!({"updateAddressGroup": {"addresses": world.listed}}));
        }
        for number in 0..GROUPS {
            self.change_group(number, world);
        }
        for number in 0..NAMES.len() {
            self.change_nic(number, &world.nics[number]);
        }
        // Hosts hear later than the caller what settings say, and who joins or leaves by a tag.
        let tags = |world: &World| world.nics.each_ref().map(|nic| nic.is_tagged);
        if (self.world.is_closed, tags(&self.world)) != (world.is_closed, tags(world)) {
            self.settle();
        }
        self.world = world.clone();
    }

    /// Waits until hosts have all that the server knows.
    fn settle(&self) {
        let has_all = || {
            let synced = self.rest.all("/hosts").into_iter().filter(|host| host["synced"] == true);
            synced.count() == 2
        };
        assert!(wait::holds(LIMIT, has_all), "hosts do not settle");
    }

    fn put(&self, path: &str, body: &Value) {
        let rest = self.rest.clone().with("prefer", "wait=30");
        let done = rest.send("PUT", path, &body.to_string()).unwrap();
        assert_eq!(done.status, 200, "{path} {body}: {done:?}");
    }

    fn delete(&self, path: &str) {
        let done = self.rest.delete(path);
        assert_eq!(done.status, 200, "{path}: {done:?}");
    }

    fn change_nic(&mut self, number: usize, wanted: &Nic) {
        let now = self.world.nics[number].clone();
        let (vm, nic) = self.nics[number].clone();
        if now.groups != wanted.groups {
            let refs = (1..).zip(&wanted.groups);
            let refs = refs.map(
                |(at, group)| json!({"securityGroupUuid": self.groups[*group], "priority": at}),
            );
            let refs: Vec<Value> = refs.collect();
            let path = format!("/security-groups/nics/{nic}/actions");
            self.put(&path, &json!({"setVmNicSecurityGroup": {"refs": refs}}));
        }
        if now.is_tagged != wanted.is_tagged {
            if wanted.is_tagged {
                let tag = json!({"resourceType": "VmInstanceVO", "resourceUuid": vm, "tag": "case=found"});
                self.tags[number] = self.rest.made("/user-tags", &tag);
            } else {
                self.delete(&format!("/tags/{}", self.tags[number]));
            }
        }
        let was_in = now.is_tagged || !now.groups.is_empty();
        let is_in = wanted.is_tagged || !wanted.groups.is_empty();
        // One that came into its first group has the settings' policy.
        let fresh = Nic::default();
        let now = if was_in { &now } else { &fresh };
        if is_in && (now.ingress, now.egress) != (wanted.ingress, wanted.egress) {
            let [ingress, egress] = [wanted.ingress, wanted.egress].map(word);
            let change = json!({"ingressPolicy": ingress, "egressPolicy": egress});
            let path = format!("/security-groups/nics/{nic}/security-policy/actions");
            self.put(&path, &json!({"changeVmNicSecurityPolicy": change}));
        }
    }

    fn change_group(&mut self, number: usize, world: &World) {
        let (now, wanted) = (self.world.groups[number].clone(), &world.groups[number]);
        let group = self.groups[number].clone();
        if now.is_enabled != wanted.is_enabled {
            let event = if wanted.is_enabled { "enable" } else { "disable" };
            let body = json!({"changeSecurityGroupState": {"stateEvent": event}});
            self.put(&format!("/security-groups/{group}/actions"), &body);
        }
        if now.has_defaults != wanted.has_defaults {
            let defaults: Vec<String> = self
                .listed(number, |priority| priority == 0)
                .into_iter()
                .map(|(_, uuid)| uuid)
                .collect();
            self.enable(&group, &defaults, wanted.has_defaults);
        }
        if now.rules == wanted.rules {
            return;
        }
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        for way in [Way::Ingress, Way::Egress] {
            let known: Vec<Known> =
                self.rules[number].iter().filter(|(_, rule)| rule.way == way).cloned().collect();
            let wanted: Vec<Rule> =
                wanted.rules.iter().filter(|rule| rule.way == way).cloned().collect();
            if !self.adjust(&group, way, &known, &wanted) {
                let kept = kept(&known, &wanted);
                gone.extend(known[kept..].iter().map(|(uuid, _)| format!("ruleUuids={uuid}")));
                new.extend(wanted[kept..].iter().cloned());
            }
        }
        if !gone.is_empty() {
            self.delete(&format!("/security-groups/rules?{}", gone.join("&")));
        }
        if !new.is_empty() {
            let new: Vec<Value> = new.iter().map(|rule| self.json(rule)).collect();
            self.rest.made(&format!("/security-groups/{group}/rules"), &json!({"rules": new}));
        }
        let listed = self.listed(number, |priority| priority > 0);
        assert_eq!(listed.len(), wanted.rules.len(), "{listed:?}");
        self.rules[number].clear();
        for way in [Way::Ingress, Way::Egress] {
            let uuids = listed.iter().filter(|((found, _), _)| *found == word_of(way));
            let rules = wanted.rules.iter().filter(|rule| rule.way == way);
            self.rules[number].extend(uuids.map(|(_, uuid)| uuid.clone()).zip(rules.cloned()));
        }
    }

    /// Does with rules that stay what can be done with them; whether there is no more to do.
    fn adjust(&self, group: &str, way: Way, known: &[Known], wanted: &[Rule]) -> bool {
        let rules: Vec<&Rule> = known.iter().map(|(_, rule)| rule).collect();
        if rules.iter().copied().eq(wanted) {
            return true;
        }
        if rules.len() == wanted.len() {
            let enabled = |rule: &Rule| Rule { is_enabled: true, ..rule.clone() };
            if rules.iter().map(|rule| enabled(rule)).eq(wanted.iter().map(enabled)) {
                for is_enabled in [true, false] {
                    let pairs = known.iter().zip(wanted);
                    let other = pairs
                        .filter(|((_, now), then)| now != *then && then.is_enabled == is_enabled);
                    let uuids: Vec<String> = other.map(|((uuid, _), _)| uuid.clone()).collect();
                    if !uuids.is_empty() {
                        self.enable(group, &uuids, is_enabled);
                    }
                }
                return true;
            }
            let place = |rule: &Rule| wanted.iter().position(|found| found == rule);
            if let Some(places) = rules.iter().map(|rule| place(rule)).collect::<Option<Vec<_>>>() {
                let ranks = known.iter().zip(places);
                let ranks =
                    ranks.map(|((uuid, _), at)| json!({"ruleUuid": uuid, "priority": at + 1}));
                let order = json!({"type": word_of(way), "rules": ranks.collect::<Vec<_>>()});
                let path = format!("/security-groups/{group}/rules/priority/actions");
                self.put(&path, &json!({"updateSecurityGroupRulePriority": order}));
                return true;
            }
            let turned = |rule: &Rule, action| Rule { action, ..rule.clone() };
            let has_turned = |(now, then): (&&Rule, &Rule)| turned(now, then.action) == *then;
            if rules.iter().zip(wanted).all(has_turned) {
                for ((uuid, _), then) in
                    known.iter().zip(wanted).filter(|((_, now), then)| now != *then)
                {
                    let change =
                        json!({"changeSecurityGroupRule": {"action": action(then.action)}});
                    self.put(&format!("/security-groups/rules/{uuid}/actions"), &change);
                }
                return true;
            }
        }
        let is_left = |(_, rule): &&Known| !wanted.contains(rule);
        let rest: Vec<&Rule> = rules.into_iter().filter(|rule| wanted.contains(rule)).collect();
        if !wanted.is_empty() && rest.into_iter().eq(wanted) {
            let gone: Vec<String> =
                known.iter().filter(is_left).map(|(uuid, _)| format!("ruleUuids={uuid}")).collect();
            self.delete(&format!("/security-groups/rules?{}", gone.join("&")));
            return true;
        }
        false
    }

    fn enable(&self, group: &str, uuids: &[String], is_enabled: bool) {
        let state = if is_enabled { "Enabled" } else { "Disabled" };
        let body = json!({"changeSecurityGroupRuleState": {"ruleUuids": uuids, "state": state}});
        self.put(&format!("/security-groups/{group}/rules/state/actions"), &body);
    }

    /// The types, places and uuids of a group's rules, in their order.
    fn listed(
        &self,
        number: usize,
        is_meant: impl Fn(u64) -> bool,
    ) -> Vec<((String, u64), String)> {
        let path = format!("/security-groups/{}", self.groups[number]);
        let found = self.rest.send("GET", &path, "").unwrap();
        let rules = found.body["inventories"][0]["rules"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let read = |rule: &Value| {
            ((text(&rule["type"]), rule["priority"].as_u64().unwrap()), text(&rule["uuid"]))
        };
        let mut rules: Vec<_> =
            rules.iter().map(read).filter(|((_, at), _)| is_meant(*at)).collect();
        rules.sort();
        rules
    }

    fn json(&self, rule: &Rule) -> Value {
        let protocol = match rule.protocol {
            None => "ALL".to_owned(),
            Some(TCP) => "TCP".to_owned(),
            Some(UDP) => "UDP".to_owned(),
            Some(ICMP | ICMPV6) => "ICMP".to_owned(),
            Some(other) => other.to_string(),
        };
        let mut json = json!({
            "type": word_of(rule.way), "ipVersion": if rule.is_v6 { 6 } else { 4 },
            "protocol": protocol, "action": action(rule.action),
            "state": if rule.is_enabled { "Enabled" } else { "Disabled" },
        });
        if !rule.ports.is_empty() {
            json["dstPortRange"] = rule.ports.clone().into();
        }
        if let Some((kind, code)) = rule.icmp {
            json["icmpType"] = kind.into();
            json["icmpCode"] = code.into();
        }
        match &rule.remote {
            Remote::Anyone => {}
            Remote::Addresses(list) if rule.way == Way::Ingress => {
                json["srcIpRange"] = list.clone().into()
            }
            Remote::Addresses(list) => json["dstIpRange"] = list.clone().into(),
            Remote::Group(number) => {
                json["remoteSecurityGroupUuid"] = self.groups[*number].clone().into()
            }
            Remote::Listed => json["remoteAddressGroupUuid"] = self.list.clone().into(),
        }
        json
    }
}

/// How many of the first rules may stay: all, if the wanted ones begin with them, else none.
fn kept(known: &[Known], wanted: &[Rule]) -> usize {
    let is_prefix =
        known.len() < wanted.len() && known.iter().zip(wanted).all(|((_, now), then)| now == then);
    if is_prefix { known.len() } else { 0 }
}

fn word_of(way: Way) -> &'static str {
    match way {
        Way::Ingress => "Ingress",
        Way::Egress => "Egress",
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Accept => "ACCEPT",
        Action::Drop => "DROP",
    }
}

fn word(otherwise: Otherwise) -> &'static str {
    match otherwise {
        Otherwise::Allow => "ALLOW",
        Otherwise::Deny => "DENY",
        Otherwise::AllowUntilRule => "ALLOW_UNTIL_RULE",
    }
}
