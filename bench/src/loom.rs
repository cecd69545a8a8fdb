//! netloom as a contender: a lab of real processes, made from `bench/topology.yaml`.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process,
};

use client::Client;
use hostnet::Namespace;
use serde_json::{Map, Value, json};

use crate::{
    Failure,
    site::{Site, VM_DEVICE, is_gone, set_mac},
};

/// Where the benchmark's labs keep their files; `make demo` has another place.
const STATE_ROOT: &str = "/run/netloom/bench";
/// What the names of the benchmark's labs start with.
const PREFIX: &str = "nlb";
const TOPOLOGY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/topology.yaml");

/// The host of the VMs `a` and `b`.
pub(crate) const HOST: &str = "h1";
/// The host of the VM `c`.
pub(crate) const OTHER_HOST: &str = "h2";
/// A VM on [`HOST`].
pub(crate) const A: (&str, Ipv4Addr) = ("a", Ipv4Addr::new(10, 0, 0, 11));
/// Another VM on [`HOST`].
pub(crate) const B: (&str, Ipv4Addr) = ("b", Ipv4Addr::new(10, 0, 0, 12));
/// A VM on [`OTHER_HOST`].
pub(crate) const C: (&str, Ipv4Addr) = ("c", Ipv4Addr::new(10, 0, 0, 13));

/// A lab that is up; it goes when this is dropped.
pub(crate) struct Loom {
    name: String,
    /// Where its server is.
    url: String,
    /// A session of `admin` with its server.
    pub(crate) client: Client,
}

impl Loom {
    /// Brings it up.
    ///
    /// # Errors
    /// What the lab says.
    pub(crate) fn up(binary: &Path) -> Result<Self, Failure> {
        Ok(Self::up_as(binary, Path::new(TOPOLOGY), &[])?.0)
    }

    /// The same with room for so many MiB of connections on each host, which says how many ports fit.
    pub(crate) fn with_room(binary: &Path, connection_mib: u32) -> Result<Self, Failure> {
        let room = format!("--connection-mib={connection_mib}");
        Ok(Self::up_as(binary, Path::new(TOPOLOGY), &[room])?.0)
    }

    /// The same of another topology, with options for its agents; and how many seconds it took.
    pub(crate) fn up_as(
        binary: &Path,
        topology: &Path,
        agent_options: &[String],
    ) -> Result<(Self, f64), Failure> {
        let name = format!("{PREFIX}{}", process::id());
        let report = lab::up(&lab::UpOptions {
            topology: topology.to_owned(),
            name: name.clone(),
            state_root: PathBuf::from(STATE_ROOT),
            binary: binary.to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            agent_options: agent_options.to_vec(),
        })?;
        // From here on it goes with the value, whatever fails.
        let client = Client::new(&report.url);
        let mut loom = Self { name, url: report.url, client };
        let password = fs::read_to_string(&report.password_file)?;
        loom.client.log_in("admin", password.trim())?;
        Ok((loom, report.seconds))
    }

    /// Another client with the same session, with a connection of its own.
    pub(crate) fn another_client(&self) -> Result<Client, Failure> {
        let session = self.client.session().ok_or("the lab has no session")?;
        Ok(Client::with_session(&self.url, session.to_owned()))
    }

    /// The start of the names of its namespaces.
    pub(crate) fn prefix(&self) -> String {
        format!("nl-{}-", self.name)
    }

    /// The process of the server, or of a host's agent.
    pub(crate) fn pid(&self, process: &str) -> Result<i32, Failure> {
        Ok(lab::start(&self.name, Path::new(STATE_ROOT), process)?)
    }

    /// The namespace of a host.
    pub(crate) fn host(&self, name: &str) -> Result<Namespace, Failure> {
        Ok(Namespace::open(&format!("{}{name}", self.prefix()))?)
    }

    /// The namespace of a VM.
    pub(crate) fn vm(&self, name: &str) -> Result<Namespace, Failure> {
        let uuid = self.uuid("/vm-instances", name)?;
        let namespaces = Namespace::list(&self.prefix())?;
        let own = namespaces.iter().find(|namespace| namespace.ends_with(&uuid));
        Ok(Namespace::open(own.ok_or_else(|| format!("VM {name} has no namespace"))?)?)
    }

    /// Sends a message and waits until it is in effect; what it made.
    pub(crate) fn made(
        &self,
        message: &str,
        fields: Value,
        tags: &[String],
    ) -> Result<Value, Failure> {
        Ok(self.client.call(message, params(fields), tags)?["inventory"].clone())
    }

    /// A physical network on the hosts' only NIC, with a VM on either host; the second one's address.
    pub(crate) fn physical(
        &self,
        name: &str,
        vlan: Option<u16>,
    ) -> Result<((Namespace, Namespace), Ipv4Addr), Failure> {
        let zone = self.uuid("/zones", "bench")?;
        let mut wanted = json!({"name": name, "zoneUuid": zone, "physicalInterface": "eth0"});
        let message = match vlan {
            None => "CreateL2NoVlanNetwork",
            Some(vlan) => {
                wanted["vlan"] = vlan.into();
                "CreateL2VlanNetwork"
            }
        };
        let l2 = text(&self.made(message, wanted, &[])?, "uuid")?;
        let cluster = self.uuid("/clusters", "cluster")?;
        let attach = json!({"l2NetworkUuid": l2, "clusterUuid": cluster});
        self.made("AttachL2NetworkToCluster", attach, &[])?;
        let l3 = json!({"name": format!("{name}-l3"), "l2NetworkUuid": l2});
        let l3 = text(&self.made("CreateL3Network", l3, &[])?, "uuid")?;
        let range = json!({"name": name, "l3NetworkUuid": l3, "startIp": "10.79.0.2",
            "endIp": "10.79.0.9", "netmask": "255.255.255.0", "gateway": "10.79.0.1"});
        self.made("AddIpRange", range, &[])?;
        let mut vms = Vec::new();
        let mut to = Ipv4Addr::UNSPECIFIED;
        for host in [HOST, OTHER_HOST] {
            let (vm, host) = (format!("{name}-{host}"), self.uuid("/hosts", host)?);
            let wanted = json!({"name": vm, "l3NetworkUuids": [l3], "hostUuid": host});
            let made = self.made("CreateVmInstance", wanted, &[])?;
            to = text(&made["vmNics"][0], "ip")?.parse()?;
            vms.push(self.vm(&vm)?);
        }
        let [one, other] = <[Namespace; 2]>::try_from(vms).map_err(|_| "two VMs are needed")?;
        Ok(((one, other), to))
    }

    /// Plugs a NIC of `red` into a tap of [`HOST`] and gives a guest behind it what the NIC has; its
    /// address.
    pub(crate) fn plug_tap(
        &self,
        site: &mut Site,
        device: &str,
        guest: &Namespace,
    ) -> Result<Ipv4Addr, Failure> {
        let (nic, ip) = self.nic()?;
        let host = self.host(HOST)?;
        site.tap((&host, device), guest)?;
        set_mac((guest, VM_DEVICE), &text(&nic, "mac")?)?;
        site.address((guest, VM_DEVICE), ip, 16)?;
        let plug = json!({"vmNicUuid": nic["uuid"], "hostUuid": self.uuid("/hosts", HOST)?,
            "device": device});
        self.made("PlugVmNic", plug, &[])?;
        Ok(ip)
    }

    /// Makes a NIC of `red` that is plugged in nowhere; and its address.
    pub(crate) fn nic(&self) -> Result<(Value, Ipv4Addr), Failure> {
        let wanted = json!({"l3NetworkUuid": self.uuid("/l3-networks", "red-l3")?});
        let nic = self.made("CreateVmNic", wanted, &[])?;
        let ip = text(&nic, "ip")?.parse()?;
        Ok((nic, ip))
    }

    /// The uuid of a resource below a path of the API.
    pub(crate) fn uuid(&self, path: &str, name: &str) -> Result<String, Failure> {
        let found = self.client.query(path, &[format!("name={name}")])?;
        let uuid = found.first().and_then(|one| one["uuid"].as_str());
        Ok(uuid.ok_or_else(|| format!("{path} has no {name}"))?.to_owned())
    }
}

impl Drop for Loom {
    fn drop(&mut self) {
        if let Err(error) = lab::down(&self.name, Path::new(STATE_ROOT)) {
            eprintln!("lab {} stays behind: {error}", self.name);
        }
    }
}

/// Takes down the labs of runs that are gone.
pub(crate) fn sweep() -> Result<(), Failure> {
    for lab in lab::status(Path::new(STATE_ROOT))? {
        if lab.name.strip_prefix(PREFIX).is_some_and(is_gone) {
            lab::down(&lab.name, Path::new(STATE_ROOT))?;
        }
    }
    Ok(())
}

/// A field of what the API shows.
pub(crate) fn text(shown: &Value, field: &str) -> Result<String, Failure> {
    let text = shown[field].as_str();
    Ok(text.ok_or_else(|| format!("there is no {field} in {shown}"))?.to_owned())
}

/// The fields of a message, written as an object.
pub(crate) fn params(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
