//! Services of L3 networks. Who provides what is fixed; nobody does yet, and the network says so.

use std::collections::BTreeMap;

use model::{
    Code, Error, Id, Meta, Record, Resource, Result, Timestamp,
    resource::{
        account::ADMIN,
        l3_network::L3Network,
        network_service::{
            AttachNetworkServiceToL3Network, DetachNetworkServiceFromL3Network,
            GetNetworkServiceTypes, NetworkServiceL3NetworkRef, NetworkServiceProvider,
            NetworkServiceType, ProviderType,
        },
    },
};
use serde_json::{Value, json};
use store::{Read, Store, Tx};

use crate::{
    Look, Reply, Txn, dhcp_server,
    operation::{Operation, job, look},
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(attach), job(detach), look(types)]
}

/// Makes the providers that this release knows, or brings them up to date.
///
/// # Errors
/// The store's.
pub fn create_providers(store: &Store<Record>, now: Timestamp) -> Result<()> {
    let make = move |tx: &mut Tx<Record>| {
        for of_type in ProviderType::ALL {
            let provider = NetworkServiceProvider {
                uuid: of_type.provider(),
                name: of_type.as_str().into(),
                description: None,
                provider_type: *of_type,
                network_service_types: of_type.services().to_vec(),
            };
            let known = tx.get(NetworkServiceProvider::KIND, provider.uuid.uuid());
            if known.as_deref().and_then(NetworkServiceProvider::of) == Some(&provider) {
                continue;
            }
            let owner = Some(Id::new(ADMIN));
            let created = known.map_or(now, |known| known.meta.created);
            let record = Record::new(provider, Meta { owner, created, changed: now });
            tx.put(record).map_err(crate::claim::taken)?;
        }
        Ok(())
    };
    store.transact(make).map(|_| ())
}

pub(crate) fn attach(txn: &mut Txn<'_>, message: AttachNetworkServiceToL3Network) -> Result<Reply> {
    let l3 = message.l3_network_uuid;
    for (provider, services) in wanted(&message.network_services)? {
        for service in services {
            if !provider.services().contains(&service) {
                let (service, name) = (service.as_str(), provider.as_str());
                let offered = provider.services().iter().map(|service| service.as_str());
                let offered = offered.collect::<Vec<_>>().join(", ");
                let error = wrong(format!("{name} does not provide {service}"));
                return Err(error.hint(format!("it provides {offered}")));
            }
            let id = NetworkServiceL3NetworkRef::id_of(l3, service);
            if let Some(known) = txn.find(id) {
                let service = known.network_service_type.as_str();
                let text = format!("L3 network {l3} has {service} already");
                let provider = known.network_service_provider_uuid;
                let hint =
                    format!("by provider {provider}: DetachNetworkServiceFromL3Network first");
                let error = Error::new(Code::OperationFailed, text).on_field("networkServices");
                return Err(error.hint(hint));
            }
            txn.insert(NetworkServiceL3NetworkRef {
                uuid: id,
                l3_network_uuid: l3,
                network_service_provider_uuid: provider.provider(),
                network_service_type: service,
            })?;
        }
    }
    dhcp_server::settle(txn, l3)?;
    Ok(Reply::shows(l3))
}

/// As in ZStack, what is not there is gone already.
pub(crate) fn detach(
    txn: &mut Txn<'_>,
    message: DetachNetworkServiceFromL3Network,
) -> Result<Reply> {
    let l3 = message.l3_network_uuid;
    let mut gone: Vec<NetworkServiceL3NetworkRef> = Vec::new();
    match (&message.network_services, message.service) {
        (None, None) => {
            let error = wrong("or service is required".into());
            return Err(error.hint("name what is to be taken away"));
        }
        (Some(services), _) => {
            for (provider, services) in wanted(services)? {
                let there = services
                    .into_iter()
                    .filter_map(|service| txn.find(NetworkServiceL3NetworkRef::id_of(l3, service)));
                gone.extend(
                    there.filter(|r| r.network_service_provider_uuid == provider.provider()),
                );
            }
        }
        (None, Some(_)) => {}
    }
    gone.extend(
        message
            .service
            .and_then(|service| txn.find(NetworkServiceL3NetworkRef::id_of(l3, service))),
    );
    for service in gone {
        txn.delete(service.uuid)?;
        if service.network_service_type == NetworkServiceType::Dhcp {
            dhcp_server::delete(txn, l3)?;
        }
    }
    Ok(Reply::shows(l3))
}

#[expect(clippy::unnecessary_wraps, reason = "all that look may refuse")]
fn types(_look: &Look<'_>, _message: GetNetworkServiceTypes) -> Result<Value> {
    let mut providers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for provider in ProviderType::ALL {
        for service in provider.services() {
            providers.entry(service.as_str()).or_default().push(provider.as_str());
        }
    }
    Ok(json!({"serviceAndProviderTypes": providers}))
}

/// Whether an L3 network has a service.
pub(crate) fn has(txn: &Txn<'_>, l3: Id<L3Network>, service: NetworkServiceType) -> bool {
    txn.find(NetworkServiceL3NetworkRef::id_of(l3, service)).is_some()
}

fn wrong(rule: String) -> Error {
    Error::field("networkServices", rule)
}

/// The form of what messages say of services.
const FORM: &str = "the form is {\"<provider's uuid or type>\": [\"DHCP\", ...]}";

/// What a message says of services, which is a map of lists.
fn wanted(services: &Value) -> Result<Vec<(ProviderType, Vec<NetworkServiceType>)>> {
    let map = services.as_object().filter(|map| !map.is_empty());
    let map = map.ok_or_else(|| wrong("is no map, or an empty one".into()).hint(FORM))?;
    let mut found = Vec::new();
    for (provider, services) in map {
        let uuid = model::id::parse_uuid(provider);
        // ZStack's clients name a provider by its uuid or by its type.
        let is_it = |of: &&ProviderType| match uuid {
            Some(uuid) => of.provider().uuid() == uuid,
            None => of.as_str() == provider,
        };
        let Some(known) = ProviderType::ALL.iter().find(is_it) else {
            let text = format!("\"{provider}\" is neither a provider's uuid nor a type");
            let mut error = wrong(text);
            error.code = Code::NotFound;
            return Err(error.hint("QueryNetworkServiceProvider lists them"));
        };
        let services: Vec<NetworkServiceType> =
            serde_json::from_value(services.clone()).map_err(|_| {
                let names = NetworkServiceType::ALL.iter().map(|service| service.as_str());
                let names = names.collect::<Vec<_>>().join(", ");
                let error = wrong(format!("{} has no list of services", known.as_str()));
                error.hint(format!("{FORM}; services are: {names}"))
            })?;
        if services.is_empty() {
            return Err(wrong(format!("{} has an empty list", known.as_str())).hint(FORM));
        }
        found.push((*known, services));
    }
    Ok(found)
}
