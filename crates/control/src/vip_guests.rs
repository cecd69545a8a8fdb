//! Which NICs a service of a VIP may lead to, and what becomes of it when they change.
//!
//! ZStack asks the state of the instance, too. Here that is nothing but what hosts report, so that a host
//! that is away would block it: only an instance that is destroyed is refused.

use model::{
    Claim, Code, Error, Id, Kind, Record, Resource, Result,
    record::OWNER,
    resource::{
        eip::Eip,
        ip_range::IpRange,
        l3_network::L3Network,
        network_service::{NetworkServiceL3NetworkRef, NetworkServiceType, ProviderType},
        port_forwarding::PortForwardingRule,
        used_ip::UsedIp,
        vip::{Vip, VipUse},
        vm_instance::{Phase, VmInstance},
        vm_nic::VmNic,
        zone::EnableState,
    },
    shown::LIST_MAX,
};
use serde_json::{Map, Value};
use store::{Key, Read};
use uuid::Uuid;

use crate::{Look, Txn};

/// A service of a VIP that is to lead somewhere.
pub(crate) struct Way {
    pub(crate) service: NetworkServiceType,
    pub(crate) vip: Vip,
    /// The address of the VIP.
    pub(crate) address: UsedIp,
}

impl Way {
    /// That of a service of a VIP.
    pub(crate) fn of(
        read: &impl Read<Record>,
        service: NetworkServiceType,
        vip: Id<Vip>,
    ) -> Result<Self> {
        let missing = || Error::not_found(Vip::DEF.name, vip);
        let vip = find(read, vip).ok_or_else(missing)?;
        let address = find(read, vip.used_ip_uuid).ok_or_else(missing)?;
        Ok(Self { service, vip, address })
    }

    /// A VIP that is disabled gets no new ways.
    pub(crate) fn check_enabled(&self, field: &str) -> Result<()> {
        match self.vip.state {
            EnableState::Enabled => Ok(()),
            EnableState::Disabled => {
                let text = format!("VIP {} is disabled", self.vip.uuid);
                let error = Error::new(Code::OperationFailed, text).on_field(field);
                Err(error.hint("ChangeVipState enables it"))
            }
        }
    }

    /// The address of a NIC that it may lead to.
    ///
    /// # Errors
    /// ZStack's rules, with its codes.
    pub(crate) fn guest(&self, read: &impl Read<Record>, nic: &VmNic) -> Result<UsedIp> {
        let vip_l3 = self.vip.l3_network_uuid;
        if nic.is_on(vip_l3) {
            let rule = format!("NIC {} is on L3 network {vip_l3}, as the VIP is", nic.uuid);
            return Err(wrong(rule, "name a NIC of another network"));
        }
        self.check_instance(read, nic)?;
        let version = self.address.ip_version;
        let Some(guest) = address_of(read, nic.uuid, version) else {
            let text = format!("NIC {} has no IPv{version} address, as the VIP is", nic.uuid);
            return Err(refused(text, "name a NIC with one, or a VIP of the other family"));
        };
        if self.service == NetworkServiceType::Eip {
            self.check_subnet(read, &guest)?;
        }
        self.check_provider(read, guest.l3_network_uuid)?;
        Ok(guest)
    }

    fn check_instance(&self, read: &impl Read<Record>, nic: &VmNic) -> Result<()> {
        let Some(instance) = nic.vm_instance_uuid.and_then(|id| find(read, id)) else {
            return Ok(());
        };
        let id = instance.uuid;
        if instance.phase == Phase::Destroyed {
            let text = format!("instance {id} is destroyed");
            return Err(refused(text, "RecoverVmInstance brings it back"));
        }
        let vip_l3 = self.vip.l3_network_uuid;
        let is_on = |nic: VmNic| nic.is_on(vip_l3);
        if self.service == NetworkServiceType::Eip && nics_of(read, id).into_iter().any(is_on) {
            let rule = format!("instance {id} has a NIC on L3 network {vip_l3}, as the VIP is");
            return Err(wrong(rule, "it is reached there; name a NIC of another instance"));
        }
        Ok(())
    }

    fn check_subnet(&self, read: &impl Read<Record>, guest: &UsedIp) -> Result<()> {
        let range: Option<IpRange> = find(read, guest.ip_range_uuid);
        let ip = self.address.ip;
        match range.filter(|range| range.network_cidr.contains(&ip)) {
            None => Ok(()),
            Some(range) => {
                let cidr = range.network_cidr;
                let text = format!("{ip} of the VIP is in {cidr}, the subnet of the NIC");
                let hint = "its instances would look for it there: choose another VIP or NIC";
                Err(refused(text, hint))
            }
        }
    }

    /// One provider carries all that a VIP leads to.
    fn check_provider(&self, read: &impl Read<Record>, l3: Id<L3Network>) -> Result<()> {
        let name = self.service.as_str();
        let Some(row) = service_of(read, l3, self.service) else {
            let text = format!("L3 network {l3} of the NIC has no service {name}");
            return Err(refused(text, "AttachNetworkServiceToL3Network adds it"));
        };
        match provider_of(read, self.vip.uuid) {
            Some(other) if Some(other) != row.provider() => {
                let (vip, other) = (self.vip.uuid, other.as_str());
                let text =
                    format!("VIP {vip} is carried by {other}, and {l3} has {name} of another");
                Err(refused(text, "use a VIP of its own for it"))
            }
            _ => Ok(()),
        }
    }
}

/// Who carries what a VIP leads to; by the first way that somebody does.
fn provider_of(read: &impl Read<Record>, vip: Id<Vip>) -> Option<ProviderType> {
    let mut from = Uuid::nil();
    loop {
        let (low, high) = Claim::peers(vip, Id::new(from));
        let (claim, (kind, _)) = read.first_held(&low, &high)?;
        let Claim::Peer(_, l3, _) = claim else { return None };
        let service = VipUse::ALL.iter().find(|it| it.kind == kind).map(|it| it.service);
        let row = service.and_then(|service| service_of(read, l3, service));
        if let Some(provider) = row.and_then(|row| row.provider()) {
            return Some(provider);
        }
        from = Uuid::from_u128(l3.uuid().as_u128().checked_add(1)?);
    }
}

fn find<R: Resource>(read: &impl Read<Record>, id: Id<R>) -> Option<R> {
    read.get(R::KIND, id.uuid()).as_deref().and_then(R::of).cloned()
}

fn service_of(
    read: &impl Read<Record>,
    l3: Id<L3Network>,
    service: NetworkServiceType,
) -> Option<NetworkServiceL3NetworkRef> {
    find(read, NetworkServiceL3NetworkRef::id_of(l3, service))
}

/// The address of a family that a NIC has: there is one at most.
fn address_of(read: &impl Read<Record>, nic: Id<VmNic>, version: u8) -> Option<UsedIp> {
    let used = read.referrers(Kind::UsedIp, UsedIp::USED_BY, nic.uuid());
    let mut used = used.filter_map(|id| find::<UsedIp>(read, Id::new(id)));
    used.find(|used| used.ip_version == version)
}

/// The NICs of an instance.
pub(crate) fn nics_of(read: &impl Read<Record>, instance: Id<VmInstance>) -> Vec<VmNic> {
    let ids = read.referrers(Kind::VmNic, VmNic::VM_INSTANCE.field, instance.uuid());
    ids.filter_map(|id| find(read, Id::new(id))).collect()
}

/// Whether a NIC has an EIP.
pub(crate) fn has_eip(read: &impl Read<Record>, nic: Id<VmNic>) -> bool {
    read.referrers(Kind::Eip, Eip::VM_NIC.field, nic.uuid()).next().is_some()
}

/// What may lead to a NIC rests on what else does, and on the NICs of its instance.
pub(crate) fn fence(txn: &mut Txn<'_>, nic: &VmNic) {
    txn.fence(nic.uuid);
    if let Some(instance) = nic.vm_instance_uuid {
        txn.fence(instance);
    }
}

fn wrong(rule: String, hint: &str) -> Error {
    Error::field("vmNicUuid", rule).hint(hint)
}

/// The refusal of a NIC that is as it must not be.
pub(crate) fn refused(text: String, hint: &str) -> Error {
    Error::new(Code::OperationFailed, text).on_field("vmNicUuid").hint(hint)
}

/// Nothing leads to a NIC any more: what did stays, without one.
pub(crate) fn leave(txn: &mut Txn<'_>, nic: Id<VmNic>) -> Result<()> {
    for eip in txn.children(Eip::VM_NIC, nic) {
        txn.update(Eip { vm_nic_uuid: None, guest_l3_network_uuid: None, ..eip })?;
    }
    for rule in txn.children(PortForwardingRule::VM_NIC, nic) {
        let gone = PortForwardingRule { vm_nic_uuid: None, guest_l3_network_uuid: None, ..rule };
        txn.update(gone)?;
    }
    Ok(())
}

/// What leads to a NIC, if something does.
fn user_of(txn: &Txn<'_>, nic: Id<VmNic>) -> Option<String> {
    let eip = txn.any_child(Eip::VM_NIC, nic).map(|eip| format!("EIP {}", eip.uuid));
    let rule = || txn.any_child(PortForwardingRule::VM_NIC, nic);
    eip.or_else(|| rule().map(|rule| format!("port forwarding rule {}", rule.uuid)))
}

/// Refuses that a NIC goes to another network while something leads to it.
pub(crate) fn check_unused(txn: &Txn<'_>, nic: Id<VmNic>) -> Result<()> {
    match user_of(txn, nic) {
        None => Ok(()),
        Some(user) => {
            let text = format!("NIC {nic} has {user}");
            Err(refused(text, "detach it first, and attach it again afterwards"))
        }
    }
}

/// Whether a resource may get another owner: a VIP, what uses it and where that leads stay together.
pub(crate) fn check_given(txn: &Txn<'_>, record: &Record) -> Result<()> {
    let refuse = |text: String, hint: &str| Err(Error::field("resourceUuid", text).hint(hint));
    let nics = match (VmInstance::of(record), VmNic::of(record)) {
        (Some(instance), _) => txn.child_ids(VmNic::VM_INSTANCE, instance.uuid),
        (_, Some(nic)) => vec![nic.uuid],
        _ => Vec::new(),
    };
    for nic in nics {
        if let Some(user) = user_of(txn, nic) {
            return refuse(format!("NIC {nic} has {user}"), "detach it first");
        }
    }
    let nic = match (Eip::of(record), PortForwardingRule::of(record)) {
        (Some(eip), _) => eip.vm_nic_uuid,
        (_, Some(rule)) => rule.vm_nic_uuid,
        _ => None,
    };
    if nic.is_some() {
        return refuse("it is attached to a NIC".to_owned(), "detach it first");
    }
    let vip = Vip::of(record).map(|vip| vip.uuid);
    let used = vip
        .and_then(|vip| VipUse::ALL.iter().find(|it| crate::vip::is_used(&*txn.tx, vip, it.kind)));
    match used {
        None => Ok(()),
        Some(used) => {
            let text = format!("the VIP is used for {}", used.service.as_str());
            refuse(text, "delete its uses first: QueryVip shows servicesRefs")
        }
    }
}

/// NICs that the caller may change and that fit, as the API shows them: as many as a list has. Of an account
/// that may change its own alone those are looked at, else those of L3 networks with a service.
pub(crate) fn candidates(
    look: &Look<'_>,
    service: NetworkServiceType,
    fits: impl Fn(&VmNic) -> bool,
) -> Vec<Map<String, Value>> {
    let nics = own(look, Kind::VmNic).unwrap_or_else(|| served(look, service));
    let seen = nics.into_iter().filter_map(|nic| look.visible(Kind::VmNic, nic));
    let mine = seen.filter(|record| look.caller().may_change(record));
    let fitting = mine.filter(|record| VmNic::of(record).is_some_and(&fits));
    fitting.take(LIST_MAX).map(|record| look.show(&record)).collect()
}

/// What an account has of a kind; nothing, if it may change that of others, too.
pub(crate) fn own(look: &Look<'_>, kind: Kind) -> Option<Vec<Uuid>> {
    let account = look.caller().account().filter(|_| !look.caller().is_admin())?;
    Some(look.snapshot().find(kind, OWNER, &Key::Uuid(account.uuid())).collect())
}

/// The NICs of L3 networks with a service.
fn served(look: &Look<'_>, service: NetworkServiceType) -> Vec<Uuid> {
    let key = Key::Text(service.as_str().into());
    let snapshot = look.snapshot();
    let rows = snapshot.find(Kind::NetworkServiceL3NetworkRef, "networkServiceType", &key);
    let rows = rows.filter_map(|id| find::<NetworkServiceL3NetworkRef>(snapshot, Id::new(id)));
    rows.flat_map(|row| look.child_ids(VmNic::L3_NETWORK, row.l3_network_uuid))
        .map(Id::uuid)
        .collect()
}
