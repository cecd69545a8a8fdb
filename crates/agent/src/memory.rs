//! The host's kernel as a data structure, for tests and simulation: it counts what is really
//! written, fails or dies on demand, and notes every instant at which a port was open unguarded.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use compute::{FarEnd, InstanceSpec, Prepared};
use dataplane::{Desk, DropTurns, Edits, Lookup, Tables};
use hostnet::Losses;
use packet::{MAX_PORTS, PortKey, Timeouts};
use uuid::Uuid;
use wire::message::Device;

use crate::{
    kernel::{
        Candidate, Counted, Directly, Guards, HostKernel, Movers, Observed, ObservedNic, Refusal,
        Room, Stock,
    },
    uplink::{Uplink, Uplinks},
};

/// The index of the tunnel device.
const TUNNEL: u32 = u32::MAX;

/// A kernel in memory. Clones share it: it outlives the agent that works on it.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<MemoryState>>);

/// What is in it.
#[derive(Debug, Default)]
pub struct MemoryState {
    /// Instances as they were made, by uuid.
    pub instances: BTreeMap<Uuid, InstanceSpec>,
    /// The host's side of each NIC.
    pub nics: BTreeMap<Uuid, ObservedNic>,
    /// Interfaces with a port's programs.
    pub attached: BTreeSet<u32>,
    /// Interfaces that are kept ready for instances to come.
    pub spares: BTreeSet<u32>,
    /// How many there should be.
    pub spares_wanted: usize,
    /// Devices that something else made, by name.
    pub devices: BTreeMap<String, Candidate>,
    /// Interfaces of them that have programs.
    pub borrowed: BTreeSet<u32>,
    /// Nobody can look for them.
    pub devices_refused: bool,
    /// The maps.
    pub tables: Tables,
    /// The tunnel device is there.
    pub tunnel: bool,
    /// The tunnel device has its program.
    pub tunnel_guarded: bool,
    /// The tunnel device cannot be made.
    pub no_tunnel: bool,
    /// Addresses that the host has not got; it has all others.
    pub lost: BTreeSet<IpAddr>,
    /// Ports that there is room for, if not the most that there ever is.
    pub ports_max: Option<u32>,
    /// What an operator should know.
    pub notice: Option<String>,
    /// The underlay's MTU, if not the usual one.
    pub underlay: Option<u32>,
    /// What passes the tunnel device by.
    pub receives_directly: Directly,
    /// Why nothing does.
    pub passes_tunnel: Option<String>,
    /// The underlay's device is no Ethernet.
    pub is_no_ethernet: bool,
    /// The UDP port of the tunnel device.
    pub port: u16,
    /// How long connections are remembered that are idle.
    pub timeouts: Timeouts,
    /// The maps cannot be written.
    pub maps_refused: bool,
    /// Interfaces that lead into physical networks.
    pub uplinks: BTreeMap<String, Uplink>,
    /// Moves that have come to their end.
    pub arrived: BTreeSet<u32>,
    /// Connections.
    pub counted: Counted,
    /// Changes made so far.
    pub writes: usize,
    /// How often the maps were edited without being read.
    pub edits: usize,
    /// How often they were read.
    pub audits: usize,
    /// How often all instances and devices were looked at.
    pub observations: usize,
    /// How often a NIC went down.
    pub went_down: usize,
    /// The driver answers nothing about these instances until they are taken out.
    pub stuck: BTreeSet<Uuid>,
    /// Calls about these objects are refused.
    pub broken: BTreeSet<Uuid>,
    /// After so many changes every call is refused, as if the agent had died.
    pub dies_after: Option<usize>,
    /// What must never happen and did.
    pub violations: Vec<String>,
    interfaces: u32,
}

impl Memory {
    /// The state, to look at or to meddle with.
    pub fn state(&self) -> MutexGuard<'_, MemoryState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryState {
    fn write(&mut self) -> Result<(), Refusal> {
        if self.dies_after.is_some_and(|limit| self.writes >= limit) {
            return Err(Refusal::new("dead"));
        }
        self.writes += 1;
        Ok(())
    }

    fn check(&self, uuid: Uuid) -> Result<(), Refusal> {
        match self.broken.contains(&uuid) {
            true => Err(Refusal::new("broken on purpose")),
            false => Ok(()),
        }
    }

    fn prepare(&mut self, spec: &InstanceSpec) -> Result<Vec<Prepared>, Refusal> {
        self.check(spec.uuid)?;
        if self.instances.get(&spec.uuid) != Some(spec) {
            self.write()?;
            if let Some(before) = self.instances.insert(spec.uuid, spec.clone()) {
                let same = before.generation == spec.generation;
                let gone = before.nics.iter().filter(|nic| !(same && spec.nics.contains(nic)));
                for nic in gone {
                    if let Some(seen) = self.nics.remove(&nic.uuid) {
                        self.attached.remove(&seen.ifindex);
                    }
                }
            }
        }
        let mut prepared = Vec::new();
        for nic in &spec.nics {
            if !self.nics.contains_key(&nic.uuid) {
                self.write()?;
                let ifindex = self.spares.pop_first().unwrap_or_else(|| self.next_interface());
                let far_end = FarEnd::Elsewhere;
                self.nics.insert(nic.uuid, ObservedNic { ifindex, up: false, far_end });
            }
            let host_ifindex = self.nics.get(&nic.uuid).map_or(0, |seen| seen.ifindex);
            let (nic, far_end) = (nic.uuid, FarEnd::Elsewhere);
            prepared.push(Prepared { nic, host_ifindex, host_device: String::new(), far_end });
        }
        Ok(prepared)
    }

    fn next_interface(&mut self) -> u32 {
        self.interfaces += 1;
        self.interfaces
    }

    fn set_up(&mut self, nic: Uuid, up: bool) -> Result<(), Refusal> {
        self.check(nic)?;
        let Some(seen) = self.nics.get(&nic).copied() else {
            return if up { Err(Refusal::new("no such nic")) } else { Ok(()) };
        };
        if seen.up == up {
            return Ok(());
        }
        self.write()?;
        if up && !self.tables.ports.contains_key(&PortKey::untagged(seen.ifindex)) {
            self.violations.push(format!("nic {nic} went up before the maps knew it"));
        }
        self.went_down += usize::from(!up);
        self.nics.insert(nic, ObservedNic { up, ..seen });
        self.check_guards();
        Ok(())
    }

    fn remove(&mut self, instance: Uuid) -> Result<(), Refusal> {
        self.check(instance)?;
        if let Some(spec) = self.instances.get(&instance).cloned() {
            self.write()?;
            for nic in &spec.nics {
                let Some(seen) = self.nics.remove(&nic.uuid) else { continue };
                // The kernel takes programs off with their device.
                self.attached.remove(&seen.ifindex);
                if seen.up {
                    self.violations.push(format!("nic {} was up when removed", nic.uuid));
                }
            }
            self.instances.remove(&instance);
        }
        Ok(())
    }

    fn fill(&mut self, tables: Tables) -> Result<(), Refusal> {
        if self.tables == tables {
            return Ok(());
        }
        if self.maps_refused {
            return Err(Refusal::new("refused on purpose"));
        }
        self.write()?;
        self.tables = tables;
        let of_others = self.devices.values().map(|device| device.plug.ifindex);
        for ifindex in of_others.filter(|ifindex| !self.attached.contains(ifindex)) {
            if self.tables.ports.contains_key(&PortKey::untagged(ifindex)) {
                self.violations.push(format!("interface {ifindex} is in the maps unguarded"));
            }
        }
        Ok(())
    }

    fn check_guards(&mut self) {
        for (nic, seen) in &self.nics {
            if seen.up && !self.attached.contains(&seen.ifindex) {
                self.violations.push(format!("nic {nic} is up without programs"));
            }
        }
    }
}

impl HostKernel for Memory {
    const HAS_UNDERLAY: bool = false;

    fn unable(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    async fn tunnel(&mut self, port: u16) -> Result<u32, Refusal> {
        let mut state = self.state();
        if state.no_tunnel {
            return Err(Refusal::new("its port is taken"));
        }
        if !(state.tunnel && state.tunnel_guarded && state.port == port) {
            state.write()?;
            (state.tunnel, state.tunnel_guarded, state.port) = (true, true, port);
        }
        Ok(TUNNEL)
    }

    async fn lacking(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<BTreeSet<IpAddr>, Refusal> {
        Ok(addresses & &self.state().lost)
    }

    async fn observe(&mut self) -> Result<Observed, Refusal> {
        let mut state = self.state();
        state.observations += 1;
        let nics = |spec: &InstanceSpec| {
            let seen = |uuid| state.nics.get(&uuid).map(|nic| (uuid, *nic));
            spec.nics.iter().filter_map(|nic| seen(nic.uuid)).collect()
        };
        Ok(Observed {
            instances: state.instances.iter().map(|(uuid, spec)| (*uuid, nics(spec))).collect(),
            attached: state.attached.clone(),
            spares: state.spares.clone(),
            borrowed: state.borrowed.clone(),
        })
    }

    async fn guards(&mut self) -> Result<Guards, Refusal> {
        let state = self.state();
        Ok(Guards {
            ports: state.attached.clone(),
            borrowed: state.borrowed.clone(),
            tunnel: state.tunnel_guarded,
            gre: state.receives_directly.gre.clone(),
            uplinks: state.uplinks.values().map(|uplink| uplink.ifindex).collect(),
        })
    }

    async fn news(&mut self) -> Option<u32> {
        std::future::pending().await
    }

    async fn see(&mut self, _: Uuid, nic: Uuid) -> Result<Option<ObservedNic>, Refusal> {
        Ok(self.state().nics.get(&nic).copied())
    }

    async fn stock(&mut self) -> Result<Stock, Refusal> {
        let mut state = self.state();
        if state.spares.len() >= state.spares_wanted {
            return Ok(Stock::Full);
        }
        state.write()?;
        let ifindex = state.next_interface();
        state.spares.insert(ifindex);
        state.attached.insert(ifindex);
        Ok(Stock::Made(ifindex))
    }

    async fn prepare(&mut self, spec: &InstanceSpec) -> Result<Vec<Prepared>, Refusal> {
        while self.state().stuck.contains(&spec.uuid) {
            tokio::task::yield_now().await;
        }
        self.state().prepare(spec)
    }

    async fn activate(&mut self, nic: Uuid) -> Result<(), Refusal> {
        self.state().set_up(nic, true)
    }

    async fn deactivate(&mut self, nic: Uuid) -> Result<(), Refusal> {
        self.state().set_up(nic, false)
    }

    async fn remove(&mut self, instance: Uuid) -> Result<(), Refusal> {
        self.state().remove(instance)
    }

    async fn attach(&mut self, ifindex: u32) -> Result<(), Refusal> {
        let mut state = self.state();
        if !state.attached.contains(&ifindex) {
            state.write()?;
            state.attached.insert(ifindex);
        }
        Ok(())
    }

    async fn find(
        &mut self,
        names: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, Candidate>, Refusal> {
        let state = self.state();
        if state.devices_refused {
            return Err(Refusal::new("refused on purpose"));
        }
        let found = state.devices.iter().filter(|(name, _)| names.contains(*name));
        Ok(found.map(|(name, device)| (name.clone(), device.clone())).collect())
    }

    async fn borrow(&mut self, ifindex: u32) -> Result<(), Refusal> {
        let mut state = self.state();
        if !state.devices.values().any(|device| device.plug.ifindex == ifindex) {
            return Err(Refusal::new("no such device"));
        }
        if !(state.borrowed.contains(&ifindex) && state.attached.contains(&ifindex)) {
            state.write()?;
            state.borrowed.insert(ifindex);
            state.attached.insert(ifindex);
        }
        Ok(())
    }

    async fn give_back(&mut self, ifindex: u32) -> Result<(), Refusal> {
        let mut state = self.state();
        if state.borrowed.contains(&ifindex) {
            state.write()?;
            state.borrowed.remove(&ifindex);
            state.attached.remove(&ifindex);
            if state.tables.ports.contains_key(&PortKey::untagged(ifindex)) {
                state.violations.push(format!("interface {ifindex} is in the maps unguarded"));
            }
        }
        Ok(())
    }

    async fn discard(&mut self, ifindex: u32) -> Result<(), Refusal> {
        let mut state = self.state();
        if state.devices.values().any(|device| device.plug.ifindex == ifindex) {
            state.violations.push(format!("interface {ifindex} of somebody else was deleted"));
        }
        if state.attached.contains(&ifindex) {
            state.write()?;
            state.attached.remove(&ifindex);
            state.nics.retain(|_, nic| nic.ifindex != ifindex);
        }
        Ok(())
    }

    async fn notice(&mut self) -> Option<String> {
        self.state().notice.clone()
    }

    async fn room(&mut self) -> Result<Room, Refusal> {
        let state = self.state();
        let present = state.tables.ports.values().map(|port| port.number).collect();
        Ok(Room { ports_max: state.ports_max.unwrap_or(MAX_PORTS), present, salt: 7 })
    }

    async fn remember(&mut self, timeouts: &Timeouts) -> Result<(), Refusal> {
        let mut state = self.state();
        if timeouts.icmp == 0 {
            return Err(Refusal::new("timeout icmp is 0 s"));
        }
        if state.timeouts != *timeouts {
            state.write()?;
            state.timeouts = *timeouts;
        }
        Ok(())
    }

    async fn apply(&mut self, edits: Edits) -> Result<(), Refusal> {
        let mut state = self.state();
        state.edits += 1;
        let mut tables = state.tables.clone();
        tables.apply(&edits);
        state.fill(tables)
    }

    async fn losses(&mut self) -> Result<Vec<Losses>, Refusal> {
        Ok(Vec::new())
    }

    async fn desk(&mut self) -> Result<Option<Desk>, Refusal> {
        Ok(None)
    }

    async fn lookup(&mut self) -> Result<Box<dyn Lookup + Send>, Refusal> {
        let mut tables = self.state().tables.clone();
        // Which the data plane does.
        for (place, port) in (1..).zip(tables.ports.values_mut()) {
            *port = port.placed(place, place.into());
        }
        Ok(Box::new(tables))
    }

    async fn drop_turns(&mut self) -> Result<Option<DropTurns>, Refusal> {
        Ok(None)
    }

    fn movers(&self) -> Option<Movers> {
        None
    }

    async fn arrived(&mut self, moves: &BTreeSet<u32>) -> Result<BTreeSet<u32>, Refusal> {
        Ok(&self.state().arrived & moves)
    }

    async fn connections(&mut self) -> Result<Counted, Refusal> {
        Ok(self.state().counted.clone())
    }

    async fn audit(&mut self, tables: &Tables) -> Result<Tables, Refusal> {
        let mut state = self.state();
        state.audits += 1;
        state.fill(tables.clone())?;
        Ok(state.tables.clone())
    }

    async fn ways(
        &mut self,
        tunnels: &crate::underlay::Tunnels,
    ) -> Result<crate::underlay::Ways, Refusal> {
        let mtu_bytes = self.state().underlay.unwrap_or(model::mtu::UNDERLAY);
        let is_ethernet = !self.state().is_no_ethernet;
        let (device, route_to) = ("eth0".to_owned(), None);
        let way = hostnet::Way { device, index: 2, is_ethernet, mtu_bytes, route_to };
        Ok(tunnels.keys().map(|vtep| (*vtep, way.clone())).collect())
    }

    async fn devices(&mut self) -> Result<Vec<Device>, Refusal> {
        Ok(Vec::new())
    }

    async fn device_news(&mut self) {
        std::future::pending().await
    }

    async fn uplinks(&mut self, interfaces: &BTreeSet<String>) -> Result<Uplinks, Refusal> {
        let state = self.state();
        let found = interfaces.iter().map(|name| {
            let found = state.uplinks.get(name).copied();
            (name.clone(), found.ok_or_else(|| Refusal::new("there is no such interface")))
        });
        Ok(found.collect())
    }

    async fn receive_directly(&mut self, wanted: Directly) -> Result<Option<String>, Refusal> {
        let mut state = self.state();
        state.receives_directly = wanted;
        Ok(state.passes_tunnel.clone())
    }
}
