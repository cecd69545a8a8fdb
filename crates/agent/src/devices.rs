//! What devices the host has that networks and tunnels may use, for the server: it chooses among
//! them before it says what is wanted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use hostnet::LinkInfo;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use wire::{DEVICES_MAX, message::Device};

use crate::kernel::HostKernel;

/// Between two looks, however often devices change.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells what devices there are until told to stop.
pub(crate) async fn keep<K: HostKernel>(
    mut kernel: K,
    seen: watch::Sender<Option<Vec<Device>>>,
    stop: CancellationToken,
) {
    let looking = async {
        loop {
            kernel.device_news().await;
            match kernel.devices().await {
                Ok(found) => _ = seen.send_if_modified(|known| replace(known, found)),
                Err(refusal) => tracing::debug!(%refusal, "cannot see the host's devices"),
            }
            sleep(PAUSE).await;
        }
    };
    stop.run_until_cancelled(looking).await;
}

fn replace(known: &mut Option<Vec<Device>>, found: Vec<Device>) -> bool {
    let is_new = known.as_ref() != Some(&found);
    *known = Some(found);
    is_new
}

/// The devices among these links, with the addresses by index, sorted by name. Ours are left out,
/// and where there are very many the cables of containers: those with addresses come first.
pub(crate) fn of(
    links: &[LinkInfo],
    addresses: &BTreeMap<u32, BTreeSet<IpAddr>>,
    is_ours: impl Fn(&str) -> bool,
) -> Vec<Device> {
    let device = |link: &LinkInfo| {
        let addresses = addresses.get(&link.index).into_iter().flatten();
        Device {
            name: link.name.clone(),
            mtu_bytes: link.mtu_bytes,
            is_up: link.is_up,
            is_ethernet: link.is_ethernet && link.mac != [0; 6],
            is_owned: link.controller.is_some(),
            addresses: addresses.copied().filter(|ip| !ip.is_loopback()).collect(),
        }
    };
    let mut devices: Vec<Device> =
        links.iter().filter(|link| !is_ours(&link.name)).map(device).collect();
    devices.sort_by_key(|device| (device.addresses.is_empty(), device.name.clone()));
    devices.truncate(DEVICES_MAX);
    devices.sort();
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_with_addresses_are_told_first_and_ours_never() {
        let link = |index: u32, name: String| LinkInfo {
            index,
            name,
            mac: [2, 0, 0, 0, 0, 1],
            is_ethernet: true,
            ..LinkInfo::default()
        };
        let mut links: Vec<LinkInfo> =
            (10..600).map(|index| link(index, format!("veth{index:04}"))).collect();
        links.extend([link(1, "zz0".to_owned()), link(2, "nl000000000001".to_owned())]);
        let ip = IpAddr::from([192, 0, 2, 1]);
        let addresses = [(1, [ip, IpAddr::from([127, 0, 0, 1])].into())].into();
        let told = of(&links, &addresses, |name| name.starts_with("nl"));
        assert_eq!(told.len(), DEVICES_MAX);
        let last = told.last().unwrap();
        assert_eq!((&*last.name, &*last.addresses), ("zz0", &[ip][..]));
        assert!(told.iter().all(|device| !device.name.starts_with("nl")));
    }
}
