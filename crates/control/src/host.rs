//! Hosts, and the tokens with which their agents enrol.

use std::sync::Arc;

use model::{
    Claim, Code, Error, Id, Kind, Message, Meta, Record, Resource, Result, Timestamp,
    resource::{
        cluster::HypervisorType,
        host::{
            AddKVMHost, ChangeHostState, CreateHostEnrolment, DeleteHost, GetHypervisorTypes, Host,
            HostCredential, HostMode, ReconnectHost, UpdateHost, UpdateKVMHost,
        },
        l2_attachment::L2NetworkClusterRef,
        zone::DeleteMode,
    },
};
use serde_json::{Map, Value, json};
use store::{Read, Tx};
use uuid::Uuid;

use crate::{
    Caller, Gate, Look, Reply, Txn,
    audit::{self, Event},
    evacuation, host_addresses,
    operation::{Operation, job, look, now},
    reserved,
    rivals::Rivals,
    secret, vtep,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        job(add),
        job(update),
        job(update_kvm),
        job(change_state),
        job(reconnect),
        job(delete),
        now(enrol),
        look(hypervisor_types),
    ]
}

/// How long a one-time enrolment token works, in seconds: long enough to carry it to the host.
pub const TOKEN_SECONDS: i64 = 3600;

pub(crate) fn add(txn: &mut Txn<'_>, message: AddKVMHost) -> Result<Reply> {
    reserved::check_host("managementIp", message.management_ip)?;
    let cluster = txn.get(message.cluster_uuid)?;
    let host = Host {
        zone_uuid: cluster.zone_uuid,
        name: message.name,
        uuid: txn.new_id(),
        cluster_uuid: cluster.uuid,
        description: message.description,
        management_ip: message.management_ip,
        hypervisor_type: cluster.hypervisor_type,
        state: HostMode::Enabled,
        reconnects: 0,
    };
    let id = txn.insert(host.clone())?;
    host_addresses::check_address(txn, &host, ("managementIp", host.management_ip))?;
    for attached in txn.children(L2NetworkClusterRef::CLUSTER, cluster.uuid) {
        let Some(cidr) = attached.vtep_cidr else { continue };
        let rivals = Rivals::of(txn, attached.l2_network_uuid)?;
        // The message has no other field that the VTEP's address comes from.
        let made = vtep::create_from_cidr(txn, &host, (cidr, &rivals));
        made.map_err(|error| error.on_field("managementIp"))?;
    }
    Ok(Reply::shows(id))
}

/// Changes a host. Its VTEPs keep their addresses: another management address does not move
/// tunnels.
pub(crate) fn update(txn: &mut Txn<'_>, message: UpdateHost) -> Result<Reply> {
    let mut host = txn.get(message.uuid)?;
    if let Some(ip) = message.management_ip {
        reserved::check_host("managementIp", ip)?;
        if ip != host.management_ip {
            host_addresses::check_address(txn, &host, ("managementIp", ip))?;
        }
        host.management_ip = ip;
    }
    host.name = message.name.unwrap_or(host.name);
    message.description.apply(&mut host.description);
    txn.update(host)?;
    Ok(Reply::shows(message.uuid))
}

pub(crate) fn update_kvm(txn: &mut Txn<'_>, message: UpdateKVMHost) -> Result<Reply> {
    let UpdateKVMHost { uuid, name, description, management_ip, .. } = message;
    update(txn, UpdateHost { uuid, name, description, management_ip })
}

/// A host that is to be maintained and has instances is emptied first, step by step.
pub(crate) fn change_state(txn: &mut Txn<'_>, message: ChangeHostState) -> Result<Reply> {
    let mut host = txn.get(message.uuid)?;
    let before = host.state;
    host.state = before.next(message.state_event);
    // An instance that another server puts there at the same time is put there for good.
    txn.fence(host.uuid);
    if host.state == HostMode::PreMaintenance {
        check_unplugged(txn, host.uuid)?;
        if !evacuation::begin(txn, &host, before)? {
            host.state = HostMode::Maintenance;
        }
    } else {
        evacuation::end(txn, host.uuid, message.state_event.as_str())?;
    }
    txn.update(host)?;
    Ok(Reply::shows(message.uuid))
}

/// Checks that no NIC is plugged into a device of a host. What has such a device is not netloom's to
/// move, and to cut it off would stop somebody's machine that goes on running.
fn check_unplugged(txn: &Txn<'_>, host: Id<Host>) -> Result<()> {
    let at = |uuid| Claim::Plugged(host, Id::new(uuid));
    let held = txn.first_held(&at(Uuid::nil()), &at(Uuid::max()));
    let Some((claim, (Kind::VmNic, _))) = held else { return Ok(()) };
    let text = format!("{claim} is plugged into a device of host {host}");
    let hint = format!(
        "its owner moves it: UnplugVmNic, and PlugVmNic elsewhere; QueryVmNic hostUuid={host} \
         driverType=external lists all such NICs"
    );
    Err(Error::new(Code::InUse, text).on_field("stateEvent").hint(hint))
}

/// The agents' door sees the number change, and ends the stream. Its VTEPs follow the addresses that
/// it has.
pub(crate) fn reconnect(txn: &mut Txn<'_>, message: ReconnectHost) -> Result<Reply> {
    let mut host = txn.get(message.uuid)?;
    if !txn.status(host.uuid).connected {
        let text = format!("the agent of host {} is not connected", host.uuid);
        let hint = "start the agent on the host: it connects by itself";
        return Err(Error::new(Code::OperationFailed, text).on_field("uuid").hint(hint));
    }
    vtep::follow(txn, &host)?;
    host.reconnects = host.reconnects.wrapping_add(1);
    txn.waits_for(host.uuid);
    txn.update(host)?;
    Ok(Reply::shows(message.uuid))
}

/// Deletes a host. What is on it must not go on there while it is started elsewhere: so it holds
/// nothing any more, or the caller vouches that it is dead. Then its instances are stopped.
pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteHost) -> Result<Reply> {
    match message.delete_mode {
        Some(DeleteMode::Enforcing) => check_dead(txn, message.uuid)?,
        None | Some(DeleteMode::Permissive) => check_empty(txn, message.uuid)?,
    }
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}

/// Nobody is asked to let go of what is on a host that is dead, on the caller's word, so it must not
/// be wrong.
fn check_dead(txn: &Txn<'_>, host: Id<Host>) -> Result<()> {
    if !txn.status(host).connected {
        return Ok(());
    }
    let text = format!("host {host} is not dead: its agent is connected");
    let hint = "power the host off first, or stop its instances and delete it without \
                deleteMode=Enforcing";
    Err(Error::new(Code::InUse, text).on_field("deleteMode").hint(hint))
}

/// Checks that no instance is on a host, or may be, and no other NIC. Costs two look-ups.
///
/// # Errors
/// [`Code::InUse`] with one of them.
pub(crate) fn check_empty(txn: &Txn<'_>, host: Id<Host>) -> Result<()> {
    let at = |uuid| Claim::Plugged(host, Id::new(uuid));
    if let Some((claim, (kind, _))) = txn.first_held(&at(Uuid::nil()), &at(Uuid::max())) {
        let text = match kind {
            Kind::Release => {
                format!("host {host} has {claim}, and has not confirmed to have let go")
            }
            _ => format!("{claim} is plugged into a device of host {host}"),
        };
        let hint = format!(
            "UnplugVmNic first (QueryVmNic hostUuid={host} driverType=external); if the host is \
             dead, power it off and DeleteHost with deleteMode=Enforcing"
        );
        return Err(Error::new(Code::InUse, text).hint(hint));
    }
    let at = |uuid| Claim::Running(host, Id::new(uuid));
    let Some((claim, (kind, _))) = txn.first_held(&at(Uuid::nil()), &at(Uuid::max())) else {
        return Ok(());
    };
    let how = match kind {
        Kind::Release => ", which it has not confirmed to have let go",
        _ => "",
    };
    let text = format!("host {host} has {claim}{how}");
    let hint = format!(
        "stop or destroy its instances first (QueryVmInstance hostUuid={host}); if the host is \
         dead, power it off and DeleteHost with deleteMode=Enforcing"
    );
    Err(Error::new(Code::InUse, text).hint(hint))
}

/// Makes a token and shows it, once: only its hash is kept. An older open token stops working.
pub(crate) async fn enrol(
    gate: Arc<Gate>,
    caller: Caller,
    message: CreateHostEnrolment,
) -> Result<Value> {
    let host = message.uuid;
    let token = secret::random()?;
    let (hash, now) = (secret::hash(&token), gate.now());
    let open = move |tx: &mut Tx<Record>| {
        let expires = open_enrolment(tx, host, hash.clone(), now)?;
        let (def, fields) = (&CreateHostEnrolment::DEF, &Map::new());
        let subject = Some((Host::KIND, host.uuid()));
        let event = Event { def, caller: &caller, fields, subject, outcome: Ok(()) };
        audit::note(tx, &event, (now, Uuid::new_v4()))?;
        Ok(expires)
    };
    let expires = gate.store().transact_async(open).await?.value;
    Ok(json!({"inventory": {
        "server": gate.enrolment.server,
        "host": host,
        "token": token,
        "ca": gate.enrolment.ca,
        "expiredDate": expires.to_string(),
    }}))
}

/// Keeps the hash of a one-time token, with which the host may enrol once.
fn open_enrolment(
    tx: &mut Tx<Record>,
    host: Id<Host>,
    token_sha256: String,
    now: Timestamp,
) -> Result<Timestamp> {
    if tx.get(Host::KIND, host.uuid()).is_none() {
        return Err(Error::not_found(Host::DEF.name, host));
    }
    let before = tx.get(HostCredential::KIND, host.uuid());
    let certificate = before.as_deref().and_then(HostCredential::of);
    let expires = now.plus_seconds(TOKEN_SECONDS);
    let credential = HostCredential {
        uuid: Id::new(host.uuid()),
        host_uuid: host,
        certificate_sha256: certificate.and_then(|before| before.certificate_sha256.clone()),
        certificate_issued: certificate.and_then(|before| before.certificate_issued),
        renewed_sha256: certificate.and_then(|before| before.renewed_sha256.clone()),
        token_sha256: Some(token_sha256),
        token_key_sha256: None,
        token_expires: expires,
    };
    let meta = Meta { owner: None, created: now, changed: now };
    tx.put(Record::new(credential, meta)).map_err(crate::claim::taken)?;
    Ok(expires)
}

#[expect(clippy::unnecessary_wraps, reason = "all that look may refuse")]
fn hypervisor_types(_look: &Look<'_>, _message: GetHypervisorTypes) -> Result<Value> {
    let names: Vec<_> = HypervisorType::ALL.iter().map(|it| it.as_str()).collect();
    Ok(json!({"hypervisorTypes": names}))
}
