"""What cloud-init's own data sources make of a metadata service, as JSON.

    cloud_init.py DIRECTORY openstack|ec2|aws

DIRECTORY has cloud-init's modules (scripts/fetch-cloud-init). `aws` is what it does where it takes the machine for one of
AWS: with tokens. Whether a machine has a data source it also finds out by its firmware, which a namespace has none of:
that is passed over, all else is what it does at boot. Of EC2 it asks at the first address alone, so that a
failure shows at once.
"""

import json
import sys

sys.path.insert(0, sys.argv[1])

from cloudinit import helpers  # noqa: E402
from cloudinit.sources import DataSourceEc2, DataSourceOpenStack, convert_vendordata  # noqa: E402
from cloudinit.sources.helpers import openstack  # noqa: E402

TIMES = {"max_wait": 20, "timeout": 5, "retries": 1}


class Distro:
    """All that the sources ask of it."""

    name = "debian"

    def get_tmp_exec_path(self):
        return "/tmp"


def source(kind, name):
    config = {"datasource": {name: dict(TIMES, metadata_urls=["http://169.254.169.254"])}}
    return kind(config, Distro(), helpers.Paths({"cloud_dir": "/nonexistent", "run_dir": "/nonexistent"}))


def text(value):
    return value.decode() if isinstance(value, bytes) else value


if sys.argv[2] == "openstack":
    own = source(DataSourceOpenStack.DataSourceOpenStack, "OpenStack")
    found = own._crawl_metadata()
    network = found["networkdata"]
    macs = {link["ethernet_mac_address"]: "eth%d" % at for at, link in enumerate(network["links"])}
    told = {
        "version": found["version"],
        "metadata": {k: v for k, v in found["metadata"].items() if k != "random_seed"},
        "seeded": len(found["metadata"]["random_seed"]),
        "userdata": text(found.get("userdata")),
        "vendordata": convert_vendordata(found.get("vendordata")),
        "vendordata2": found.get("vendordata2"),
        "ec2": found.get("ec2-metadata"),
        "network": openstack.convert_net_json(network, known_macs=macs),
    }
else:
    own = source(DataSourceEc2.DataSourceEc2, "Ec2")
    own._cloud_name = "aws" if sys.argv[2] == "aws" else "unknown"
    found = own.crawl_metadata()
    told = {
        "metadata": found.get("meta-data"),
        "userdata": text(found.get("user-data")),
        "identity": found.get("dynamic", {}).get("instance-identity", {}).get("document"),
        "token": bool(own._api_token),
        "network": DataSourceEc2.convert_ec2_metadata_network_config(
            found["meta-data"]["network"],
            macs_to_nics={mac: "eth0" for mac in found["meta-data"]["network"]["interfaces"]["macs"]},
        ) if found else None,
    }
print(json.dumps(told, default=text))
