//! Rules of security groups in topologies. They have no names, so a rule is what it says.

use std::collections::BTreeMap;

use client::Client;
use model::Kind;
use serde_json::{Map, Value, json};

use crate::{Error, arguments::Call};

/// The noun's kind.
pub(crate) const KIND: Kind = Kind::SecurityGroupRule;
/// Fields of a rule, which a file leaves out where it means nothing of it.
const OPTIONAL: [&str; 7] = [
    "srcIpRange",
    "dstIpRange",
    "dstPortRange",
    "remoteSecurityGroupUuid",
    "remoteAddressGroupUuid",
    "icmpType",
    "icmpCode",
];
/// Fields that have a value without being named.
const BY_DEFAULT: [(&str, &str); 2] = [("action", "ACCEPT"), ("state", "Enabled")];
const GROUP: &str = "securityGroupUuid";
const RULES: &str = "rules";
/// Each rule once for each of these.
const REMOTES: &str = "remoteSecurityGroupUuids";

/// The rules that a topology has for each group that it has rules for, by its uuid.
#[derive(Default)]
pub(crate) struct Wanted(BTreeMap<String, Vec<Map<String, Value>>>);

impl Wanted {
    /// Notes the rules of a call, and leaves those in it that the group does not have; whether there are any.
    pub(crate) fn note(&mut self, client: &Client, call: &mut Call) -> Result<bool, Error> {
        let group = call.params.get(GROUP).and_then(Value::as_str).unwrap_or_default().to_owned();
        let rules = expanded(call)?;
        let there = rules_of(client, &group)?;
        let lacking: Vec<Value> = rules
            .iter()
            .filter(|rule| !there.iter().any(|row| is_said(rule, row)))
            .map(|rule| Value::Object(rule.clone()))
            .collect();
        self.0.entry(group).or_default().extend(rules);
        let are_any = !lacking.is_empty();
        call.params.insert(RULES.to_owned(), lacking.into());
        Ok(are_any)
    }

    /// What takes away the rules that those groups have and the topology does not, by group.
    pub(crate) fn others(&self, client: &Client) -> Result<Vec<(String, Call)>, Error> {
        let mut calls = Vec::new();
        for (group, rules) in &self.0 {
            let there = rules_of(client, group)?;
            let others = there.iter().filter(|row| !rules.iter().any(|rule| is_said(rule, row)));
            let uuids: Vec<Value> = others.map(|row| row["uuid"].clone()).collect();
            if uuids.is_empty() {
                continue;
            }
            let text = format!("{} rules of security group {group}", uuids.len());
            let params = [("ruleUuids".to_owned(), Value::from(uuids))].into_iter().collect();
            calls.push((
                text,
                Call { message: "DeleteSecurityGroupRule", params, tags: Vec::new() },
            ));
        }
        Ok(calls)
    }
}

/// The rules of a call, each with its remote.
fn expanded(call: &mut Call) -> Result<Vec<Map<String, Value>>, Error> {
    let remotes = match call.params.remove(REMOTES) {
        Some(Value::Array(remotes)) => remotes.into_iter().map(Some).collect(),
        _ => vec![None],
    };
    let wrong = || Error::Usage("rules is a list of rules, each of which has fields".to_owned());
    let given = call.params.get(RULES).and_then(Value::as_array).ok_or_else(wrong)?;
    let mut rules = Vec::new();
    for rule in given {
        let rule = rule.as_object().ok_or_else(wrong)?;
        for remote in &remotes {
            let mut rule = rule.clone();
            if let Some(remote) = remote {
                rule.insert("remoteSecurityGroupUuid".to_owned(), remote.clone());
            }
            rules.push(rule);
        }
    }
    Ok(rules)
}

/// All of a group but its default rules.
fn rules_of(client: &Client, group: &str) -> Result<Vec<Value>, Error> {
    let conditions = [format!("{GROUP}={group}"), "priority>0".to_owned()];
    Ok(client.query(KIND.def().path(), &conditions)?)
}

/// Whether a rule that there is says what a wanted one says.
fn is_said(wanted: &Map<String, Value>, row: &Value) -> bool {
    let has = |field: &str, value: &Value| row.get(field).unwrap_or(&Value::Null) == value;
    let optional = OPTIONAL.iter().filter(|field| !wanted.contains_key(**field));
    let by_default = BY_DEFAULT.iter().filter(|(field, _)| !wanted.contains_key(*field));
    wanted.iter().all(|(field, value)| has(field, value))
        && optional.into_iter().all(|field| has(field, &Value::Null))
        && by_default.into_iter().all(|(field, value)| has(field, &json!(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_what_it_says() {
        let row = json!({"uuid": "r", "securityGroupUuid": "g", "priority": 1, "type": "Ingress",
            "ipVersion": 4, "protocol": "TCP", "dstPortRange": "80", "action": "ACCEPT",
            "state": "Enabled", "remoteSecurityGroupUuid": "web"});
        let check = |wanted: Value, expected: bool| {
            let Value::Object(wanted) = wanted else { panic!("an object") };
            assert_eq!(is_said(&wanted, &row), expected, "{wanted:?}");
        };
        let of_web = json!({"type": "Ingress", "protocol": "TCP", "dstPortRange": "80",
            "remoteSecurityGroupUuid": "web"});
        check(of_web.clone(), true);
        let and = |field: &str, value: Value| {
            let mut rule = of_web.clone();
            rule[field] = value;
            rule
        };
        check(and("action", json!("ACCEPT")), true);
        check(and("ipVersion", json!(4)), true);
        check(and("action", json!("DROP")), false);
        check(and("ipVersion", json!(6)), false);
        check(and("dstPortRange", json!("81")), false);
        check(json!({"type": "Ingress", "protocol": "TCP", "dstPortRange": "80"}), false);
    }

    #[test]
    fn each_rule_stands_for_one_of_each_remote_group() {
        let params = json!({"securityGroupUuid": "g", "remoteSecurityGroupUuids": ["a", "b"],
            "rules": [{"type": "Ingress", "protocol": "ALL"}]});
        let Value::Object(params) = params else { panic!("an object") };
        let mut call = Call { message: "AddSecurityGroupRule", params, tags: Vec::new() };
        let rules = expanded(&mut call).unwrap();
        let remotes: Vec<_> = rules.iter().map(|rule| &rule["remoteSecurityGroupUuid"]).collect();
        assert_eq!(remotes, ["a", "b"]);
        assert!(!call.params.contains_key(REMOTES));
        call.params.insert(RULES.to_owned(), json!("all"));
        assert!(expanded(&mut call).unwrap_err().to_string().contains("list of rules"));
    }
}
