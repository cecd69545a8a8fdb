//! Help by topic: what several commands do together, with examples. Every example is a line that
//! starts with two spaces and `netloom`; tests read all of them, and run those of `networks`.

/// A topic.
pub struct Topic {
    /// Its word.
    pub word: &'static str,
    /// What it is about, in a line.
    pub about: &'static str,
    /// The text.
    pub text: &'static str,
}

/// Every topic.
pub const TOPICS: &[Topic] = &[
    Topic { word: "networks", about: "from an empty server to a network for VMs", text: NETWORKS },
    Topic { word: "vms", about: "VMs: made, moved, destroyed, brought back", text: VMS },
    Topic { word: "addresses", about: "addresses, MACs and names of VMs", text: ADDRESSES },
    Topic { word: "queries", about: "finding things", text: QUERIES },
    Topic { word: "topologies", about: "networks in files", text: TOPOLOGIES },
    Topic { word: "accounts", about: "tenants, quotas and sharing", text: ACCOUNTS },
    Topic { word: "settings", about: "what administrators set", text: SETTINGS },
    Topic { word: "scripts", about: "output, waiting and exit codes", text: SCRIPTS },
];

/// The topics with what they are about, a line each.
#[must_use]
pub fn list() -> String {
    TOPICS.iter().map(|topic| format!("  {:<12}{}\n", topic.word, topic.about)).collect()
}

const NETWORKS: &str = "\
A zone holds clusters of hosts, and networks. A VXLAN network takes its number
from a pool; the pool is attached to the clusters whose hosts carry it, with the
subnet in which their tunnels end. An L3 network has addresses for VMs.

  netloom zone create z1
  netloom cluster create c1 --zone z1 --hypervisor-type KVM
  netloom host create h1 --cluster c1 --management-ip 192.0.2.11
  netloom pool create p1 --zone z1
  netloom vnis create v1 --l2 p1 --start-vni 100 --end-vni 199
  netloom pool attach p1 c1 --cidr 192.0.2.0/24
  netloom vxlan create red --pool p1
  netloom l3 create red-l3 --l2 red
  netloom range create r1 --l3 red-l3 --network-cidr 10.0.0.0/24

A host is enrolled once; the file is for `netloom agent --enrol` there:

  netloom host enrol h1 -O enrol.json
  netloom status
";

const VMS: &str = "\
  netloom vm create red-1 --l3 red-l3
  netloom vm create red-2 --l3 red-l3 --ip 10.0.0.12 --host h1
  netloom vm list state=Running host=h1
  netloom vm show red-1

A stopped VM keeps its addresses. It moves by a stop here and a start there:

  netloom vm stop red-1
  netloom vm start red-1 --host h2

A destroyed VM gives its addresses back, keeps its MACs, and can be brought back
for a day; the setting vm deletionPolicy says otherwise (netloom help settings):

  netloom vm destroy red-1
  netloom vm recover red-1
  netloom vm expunge red-1
";

const ADDRESSES: &str = "\
A VM gets a free address of each family unless one is chosen. A chosen one stays
its own, also when the VM is destroyed and recovered.

  netloom vm create red-3 --l3 red-l3 --ip 10.0.0.13 --hostname web-3
  netloom vm create red-4 --l3 red-l3 --mac 02:00:00:00:00:04
  netloom SetVmStaticIp vmInstanceUuid=red-3 l3NetworkUuid=red-l3 ip=10.0.0.33
  netloom SetVmHostname uuid=red-3 hostname=www
  netloom nic list ip=10.0.0.33
  netloom l3 free-ips red-l3 limit=5
  netloom QueryVmInstance __systemTag__=hostname::www
";

const QUERIES: &str = "\
Conditions have the operators = != > < >= <= ~= (like, with %) ?= (one of), and
names stand for uuids. Fields of related resources are reached by dots.

  netloom vm list web
  netloom vm list name~=web% state=Running
  netloom vm list vmNics.ip=10.0.0.5 -o json
  netloom QueryVmInstance vmNics.l3Network.name=red-l3 fields=name,uuid limit=10
  netloom QueryVmNic __userTag__=shop count=true
  netloom ZQLQuery zql=\"count vminstance where name like 'web%'\"
";

const TOPOLOGIES: &str = "\
A file names resources; `apply` makes what is missing, changes what differs, and
shows the plan first. The second apply does nothing. docs/cli.md has the form.

  netloom -O all.yaml export
  netloom diff -f web.yaml
  netloom apply -f web.yaml
  netloom apply -f web.yaml --prune --yes
  netloom delete -f web.yaml
";

const ACCOUNTS: &str = "\
A normal account sees what it owns and what is shared with it, within quotas.

  netloom account create bob --password @bob.txt
  netloom UpdateQuota identityUuid=bob name=vm.num value=50
  netloom ShareResource resourceUuids=red-l3 accountUuids=bob
  netloom login --profile bob --account bob
  netloom --profile bob whoami
  netloom passwd
";

const SETTINGS: &str = "\
Settings are rows of GlobalConfig; some have a value for one resource too.

  netloom QueryGlobalConfig category=vm fields=name,value,description
  netloom UpdateGlobalConfig category=vm name=deletionPolicy value=Direct
  netloom UpdateResourceConfig category=vm name=expungePeriod resourceUuid=red-1 value=600
  netloom GetResourceConfig category=vm name=expungePeriod resourceUuid=red-1
";

const SCRIPTS: &str = "\
A call is done when the hosts concerned have it in force; what it waits for is
told on standard error. Results are on standard output.

  netloom vm create red-5 --l3 red-l3 -o uuid
  netloom vm create red-6 --l3 red-l3 --no-wait
  netloom wait vm red-6 state=Running --timeout 60
  netloom vm list -o json
  netloom vm list -o name

Exit codes: 0 done, 1 wrong words, names or files, 2 differences, 3 refused by
the server, 4 not done in time, 5 the server does not answer, 130 interrupted.
";
