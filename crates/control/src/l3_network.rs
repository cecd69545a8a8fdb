//! L3 networks.

use model::{
    Code, Error, Record, Resource, Result, mtu,
    resource::{
        ip_range::{IpRange, IpRangeType},
        l2_network::L2Network,
        l3_network::{
            ChangeL3NetworkState, CreateL3Network, DeleteL3Network, GetL3NetworkTypes,
            IpAllocatorStrategy, L3Category, L3Network, L3Type, UpdateL3Network,
        },
        zone::EnableState,
    },
};

use serde_json::{Value, json};
use store::Read;

use crate::{
    Look, Reply, Txn, l2_network,
    operation::{Operation, job, look},
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(create), job(update), job(change_state), job(delete), look(types)]
}

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateL3Network) -> Result<Reply> {
    let l2 = txn.get(message.l2_network_uuid)?;
    if l2.segment.is_pool() {
        let error = Error::field("l2NetworkUuid", format!("{} is a pool", l2.uuid));
        let message =
            if l2.segment.is_gre() { "CreateL2GreNetwork" } else { "CreateL2VxlanNetwork" };
        return Err(error.hint(format!("make a network from it with {message}")));
    }
    let ip_version = message.ip_version.unwrap_or(4);
    if ip_version == 5 {
        return Err(Error::field("ipVersion", "5 is no family").hint("give 4 or 6"));
    }
    let category = message.category.unwrap_or(L3Category::Private);
    let system = message.system.unwrap_or(category == L3Category::System);
    agree(category, system)?;
    check_domain(message.dns_domain.as_deref())?;
    if message.enable_ipam == Some(false) {
        let error = Error::field("enableIPAM", "an L3 network without addresses is not made yet");
        return Err(error.hint("give true, or leave it out"));
    }
    let network = L3Network {
        uuid: txn.new_id(),
        name: message.name,
        description: message.description,
        network_type: L3Type::Basic,
        zone_uuid: l2.zone_uuid,
        l2_network_uuid: l2.uuid,
        state: EnableState::Enabled,
        dns_domain: message.dns_domain,
        system,
        category,
        ip_version,
        enable_ipam: true,
        dns: Vec::new(),
        mtu: None,
        router_interface_ip: None,
        ip_allocator_strategy: message.ip_allocator_strategy.unwrap_or(IpAllocatorStrategy::Random),
    };
    txn.insert(network).map(Reply::shows)
}

pub(crate) fn update(txn: &mut Txn<'_>, message: UpdateL3Network) -> Result<Reply> {
    let mut l3 = txn.get(message.uuid)?;
    l3.category = message.category.unwrap_or(l3.category);
    l3.system = message.system.unwrap_or(l3.system);
    agree(l3.category, l3.system)?;
    if l3.category != L3Category::Public {
        let ranges = txn.children(IpRange::L3_NETWORK, l3.uuid);
        let pool = ranges.iter().find(|range| range.ip_range_type == IpRangeType::AddressPool);
        if let Some(pool) = pool {
            let text = format!("L3 network {} has address pool {}", l3.uuid, pool.uuid);
            let error = Error::new(Code::OperationFailed, text).on_field("category");
            return Err(error.hint("only Public networks have pools: DeleteIpRange first"));
        }
        txn.fence(l3.uuid);
    }
    l3.name = message.name.unwrap_or(l3.name);
    message.description.apply(&mut l3.description);
    message.dns_domain.apply(&mut l3.dns_domain);
    check_domain(l3.dns_domain.as_deref())?;
    l3.ip_allocator_strategy = message.ip_allocator_strategy.unwrap_or(l3.ip_allocator_strategy);
    txn.update(l3)?;
    Ok(Reply::shows(message.uuid))
}

pub(crate) fn change_state(txn: &mut Txn<'_>, message: ChangeL3NetworkState) -> Result<Reply> {
    let mut l3 = txn.get(message.uuid)?;
    l3.state = l3.state.next(message.state_event);
    txn.update(l3)?;
    Ok(Reply::shows(message.uuid))
}

/// ZStack's pairs: the platform's own networks have a category of their own.
fn agree(category: L3Category, system: bool) -> Result<()> {
    if system == (category == L3Category::System) {
        return Ok(());
    }
    let rule = format!("{system} does not agree with category {}", category.as_str());
    let hint = "true goes with category System, false with the others: change both together";
    Err(Error::field("system", rule).hint(hint))
}

/// Checks that a domain can be one (RFC 1123 §2.1, RFC 1035 §2.3.4).
fn check_domain(domain: Option<&str>) -> Result<()> {
    let Some(domain) = domain else { return Ok(()) };
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let edge = |c: char| c.is_ascii_alphanumeric();
        (1..=63).contains(&label.len())
            && label.chars().all(inner)
            && label.starts_with(edge)
            && label.ends_with(edge)
    };
    let is_number = domain.rsplit('.').next().is_some_and(|last| last.parse::<u64>().is_ok());
    if domain.len() <= 253 && domain.split('.').all(is_label) && !is_number {
        return Ok(());
    }
    let error = Error::field("dnsDomain", format!("\"{domain}\" is no domain name"));
    Err(error.hint("letters, digits and hyphens between dots, such as example.org"))
}

/// MTU of the NICs of a network, in bytes: its own, else what its L2 network leaves.
pub(crate) fn mtu_bytes(read: &impl Read<Record>, l3: &L3Network) -> u32 {
    l3.mtu.unwrap_or_else(|| {
        let l2 = read.get(L2Network::KIND, l3.l2_network_uuid.uuid());
        let segment = l2.as_deref().and_then(L2Network::of).map(|l2| l2.segment);
        segment.map_or(mtu::UNDERLAY, |segment| l2_network::mtu_bytes(read, &segment))
    })
}

#[expect(clippy::unnecessary_wraps, reason = "all that look may refuse")]
fn types(_look: &Look<'_>, _message: GetL3NetworkTypes) -> Result<Value> {
    let names: Vec<_> = L3Type::ALL.iter().map(|it| it.as_str()).collect();
    Ok(json!({"types": names}))
}

pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteL3Network) -> Result<Reply> {
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}
