//! Operations: each message with its handler, and the checks that all share.

use model::{
    Error, Id, Kind, Message, MessageDef, Record, Result, declare::Method,
    resource::l2_vxlan_network::L2VxlanNetwork,
};
use serde_json::{Map, Value};
use store::Tx;
use uuid::Uuid;

use crate::{
    Call, Reply, Txn, cluster, host, ip_range, l2_vxlan_network, l2_vxlan_pool, l3_network,
    validate, vm_instance, vm_nic, vtep, zone,
};

type Handler = Box<dyn Fn(&mut Txn<'_>, Map<String, Value>) -> Result<Reply> + Send + Sync>;

/// A message and what it does.
pub struct Operation {
    /// Its declaration.
    pub def: &'static MessageDef,
    handler: Handler,
}

impl Operation {
    /// Runs the call inside a transaction: references must exist, then the handler decides.
    ///
    /// # Errors
    /// The handler's, or [`model::Code::NotFound`] for a reference that leads nowhere.
    pub fn run(&self, tx: &mut Tx<Record>, call: &Call) -> Result<Reply> {
        let mut txn = Txn::new(tx, call);
        for field in self.def.fields {
            let (Some(kind), Some(value)) = (field.refs, call.params.get(field.name)) else {
                continue;
            };
            for uuid in uuids(value) {
                if txn.record(kind, uuid).is_some() {
                    continue;
                }
                // ZStack: deleting what is gone succeeds.
                if self.def.method == Method::Delete {
                    return Ok(Reply::nothing());
                }
                let error = Error::not_found(kind.def().name, uuid.simple());
                return Err(error.on_field(field.name));
            }
        }
        let reply = (self.handler)(&mut txn, call.params.clone())?;
        match txn.unused_tag() {
            Some(tag) => Err(self.odd_tag(tag)),
            None => Ok(reply),
        }
    }

    /// Refused as an unknown field is: a tag that is ignored would build something else than what
    /// was asked for.
    fn odd_tag(&self, tag: &str) -> Error {
        let text = format!("nothing in {} takes the tag \"{tag}\"", self.def.name);
        let hint =
            format!("the tags that a message takes are in its description: {}", self.def.doc);
        Error::field("systemTags", text).hint(hint)
    }
}

/// The uuids in a reference field: one, or a list of them.
fn uuids(value: &Value) -> Vec<Uuid> {
    let one = |value: &Value| value.as_str().and_then(model::id::parse_uuid);
    match value {
        Value::Array(items) => items.iter().filter_map(one).collect(),
        other => one(other).into_iter().collect(),
    }
}

fn operation<M: Message>(handler: fn(&mut Txn<'_>, M) -> Result<Reply>) -> Operation {
    let run = move |txn: &mut Txn<'_>, params: Map<String, Value>| {
        let message = serde_json::from_value(Value::Object(params));
        let message = message.map_err(|cause| {
            let error =
                Error::new(model::Code::InvalidArgument, format!("{}: {cause}", M::DEF.name));
            error.hint(validate::usage(&M::DEF))
        })?;
        handler(txn, message)
    };
    Operation { def: &M::DEF, handler: Box::new(run) }
}

/// Every operation that is answered by a job.
#[must_use]
pub fn all() -> Vec<Operation> {
    vec![
        operation(zone::create),
        operation(zone::delete),
        operation(cluster::create),
        operation(cluster::delete),
        operation(host::add),
        operation(host::delete),
        operation(l2_vxlan_pool::create),
        operation(l2_vxlan_pool::create_vni_range),
        operation(l2_vxlan_pool::delete_vni_range),
        operation(l2_vxlan_pool::attach),
        operation(l2_vxlan_pool::detach),
        operation(vtep::create),
        operation(l2_vxlan_network::create),
        operation(delete_l2_network),
        operation(l3_network::create),
        operation(l3_network::delete),
        operation(ip_range::add),
        operation(ip_range::add_ipv6),
        operation(ip_range::delete),
        operation(vm_instance::create),
        operation(vm_instance::destroy),
        operation(vm_nic::create),
        operation(vm_nic::delete),
    ]
}

/// ZStack deletes L2 networks of every type by one message.
fn delete_l2_network(
    txn: &mut Txn<'_>,
    message: model::resource::l2_vxlan_network::DeleteL2Network,
) -> Result<Reply> {
    let uuid = message.uuid.uuid();
    if txn.record(Kind::L2VxlanNetworkPool, uuid).is_some() {
        return l2_vxlan_pool::delete(txn, Id::new(uuid));
    }
    l2_vxlan_network::delete(txn, Id::<L2VxlanNetwork>::new(uuid))
}

#[cfg(test)]
mod tests {
    use model::{declare::Answer, resource::MESSAGES};

    #[test]
    fn every_declared_job_message_has_a_handler_and_no_other_has() {
        let declared = MESSAGES.iter().filter(|m| m.answer == Answer::Job).map(|m| m.name);
        let handled = super::all();
        assert_eq!(
            declared.collect::<Vec<_>>(),
            handled.iter().map(|o| o.def.name).collect::<Vec<_>>()
        );
    }
}
