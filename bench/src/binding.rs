//! From the wish for a VM to its first packet: `CreateVmInstance`, and as the baseline a bare
//! namespace with a veth. Who asks is another VM, by ICMP echo, every 200 µs.

use std::{net::Ipv4Addr, time::Instant};

use hostnet::Namespace;
use serde_json::json;

use crate::{
    Failure,
    loom::{A, Loom, params},
    ping::Pinger,
    site::{MTU_BYTES, Site, VM_DEVICE},
};

/// VMs per sample: enough of them for a 99th percentile over twenty rounds.
const VMS: usize = 5;
/// The first address that the topology leaves free.
const FIRST: u32 = u32::from_be_bytes([10, 0, 1, 0]);
/// As many fit before the last address of the topology's range.
const ADDRESSES: u32 = 65_000;

/// The times of several VMs, in milliseconds.
#[derive(Default)]
pub(crate) struct Times {
    /// From the answer to the wish until the first reply.
    acknowledged: Vec<f64>,
    /// From the wish until the first reply.
    total: Vec<f64>,
}

impl Times {
    fn add(&mut self, wished: Instant, acknowledged: Instant) {
        self.acknowledged.push(acknowledged.elapsed().as_secs_f64() * 1e3);
        self.total.push(wished.elapsed().as_secs_f64() * 1e3);
    }

    /// p50 and p99 of either.
    pub(crate) fn into_metrics(self) -> Vec<Vec<f64>> {
        vec![self.acknowledged.clone(), self.acknowledged, self.total.clone(), self.total]
    }
}

/// Instances of a lab.
pub(crate) struct Instances {
    pinger: Pinger,
    l3: String,
    made: u32,
    loom: Loom,
}

impl Instances {
    /// Of a lab that is up.
    pub(crate) fn new(loom: Loom) -> Result<Self, Failure> {
        let pinger = Pinger::open(&loom.vm(A.0)?)?;
        let l3 = loom.uuid("/l3-networks", "red-l3")?;
        Ok(Self { pinger, l3, made: 0, loom })
    }

    /// Makes instances on a host, one after the other, each gone before the next.
    pub(crate) fn sample(&mut self, host: &str) -> Result<Times, Failure> {
        let host = self.loom.uuid("/hosts", host)?;
        let mut times = Times::default();
        for _ in 0..VMS {
            if self.made == ADDRESSES {
                return Err("no address is left: fewer rounds".into());
            }
            let ip = Ipv4Addr::from(FIRST + self.made);
            let name = format!("vm{}", self.made);
            self.made += 1;
            let fields = json!({"name": name, "l3NetworkUuids": [self.l3], "hostUuid": host});
            let tags = [format!("staticIp::{}::{ip}", self.l3)];
            let wished = Instant::now();
            let answer = self.loom.client.call("CreateVmInstance", params(fields), &tags)?;
            let acknowledged = Instant::now();
            self.pinger.first_reply(ip)?;
            times.add(wished, acknowledged);
            let gone = json!({"uuid": answer["inventory"]["uuid"]});
            self.loom.client.call("DestroyVmInstance", params(gone), &[])?;
        }
        Ok(times)
    }
}

/// Namespaces with a cable to a common one, and nothing else.
pub(crate) struct Bare {
    site: Site,
    asker: Namespace,
    pinger: Pinger,
    made: u32,
}

impl Bare {
    /// None yet.
    pub(crate) fn new() -> Result<Self, Failure> {
        let mut site = Site::new()?;
        let asker = site.namespace("bare-asker")?;
        let pinger = Pinger::open(&asker)?;
        Ok(Self { site, asker, pinger, made: 0 })
    }

    /// Makes namespaces, one after the other, each gone before the next.
    pub(crate) fn sample(&mut self) -> Result<Times, Failure> {
        let ip = Ipv4Addr::new(10, 78, 0, 2);
        let mut times = Times::default();
        for _ in 0..VMS {
            let name = format!("bare-{}", self.made);
            self.made += 1;
            let wished = Instant::now();
            let vm = self.site.namespace(&name)?;
            self.site.cable((&self.asker, "p1"), (&vm, VM_DEVICE), MTU_BYTES)?;
            self.site.address((&self.asker, "p1"), Ipv4Addr::new(10, 78, 0, 1), 24)?;
            self.site.address((&vm, VM_DEVICE), ip, 24)?;
            let made = Instant::now();
            self.pinger.first_reply(ip)?;
            times.add(wished, made);
            self.site.delete_device((&self.asker, "p1"))?;
            Namespace::remove(vm.name())?;
        }
        Ok(times)
    }
}
