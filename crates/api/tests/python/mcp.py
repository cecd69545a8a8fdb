"""Drives a server with the client of ZStack's MCP server (PyPI: zstack-mcp-server).

Usage: mcp.py URL PASSWORD. Class names and call types are those of the package's own list.
"""

import asyncio
import json
import sys
from importlib.resources import files

from zstack_mcp.zstack_client import ZStackApiError, ZStackClient

LISTED = json.loads(files("zstack_mcp").joinpath("data/api_docs.json").read_text("utf-8"))
BY_NAME = {a["apiName"].rsplit(".", 1)[-1][3:-3]: a for a in LISTED.values()}


async def main(url, password):
    client = ZStackClient(api_url=url, account="admin", password=password)

    async def send(message, /, **fields):
        listed = BY_NAME[message]
        return await client.execute(message, listed["apiName"], fields, listed["callType"] == "async")

    async def made(message, /, **fields):
        return (await send(message, **fields))["inventory"]["uuid"]

    zone = await made("CreateZone", name="z")
    cluster = await made("CreateCluster", name="c", zoneUuid=zone, hypervisorType="KVM")
    pool = await made("CreateL2VxlanNetworkPool", name="p", zoneUuid=zone)
    await send("CreateVniRange", name="r", startVni=1, endVni=9, l2NetworkUuid=pool)
    tag = f"l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{{172.30.0.0/24}}"
    await send("AttachL2NetworkToCluster", l2NetworkUuid=pool, clusterUuid=cluster, systemTags=[tag])
    l2 = await made("CreateL2VxlanNetwork", name="l2", poolUuid=pool)
    l3 = await made("CreateL3Network", name="l3", l2NetworkUuid=l2)
    await send("AddIpRange", l3NetworkUuid=l3, name="r", startIp="10.0.0.10", endIp="10.0.0.20",
               netmask="255.255.255.0")

    where = [{"name": "name", "op": "=", "value": "l3"}]
    found = await send("QueryL3Network", conditions=where, replyWithCount=True)
    assert [n["uuid"] for n in found["inventories"]] == [l3] and found["total"] == 1, found
    found = await send("ZQLQuery", zql="query vmnic.uuid; count l3network where name like 'l%'")
    assert found["results"] == [{"inventories": []}, {"total": 1}], found
    try:
        await send("CreateCluster", name="c", zoneUuid="f" * 32, hypervisorType="KVM")
        raise AssertionError("a cluster in no zone")
    except ZStackApiError as error:
        assert error.code == "SYS.1003", error.code
    # A session that is over is opened anew by the client itself.
    client.session.uuid = "0" * 32
    await send("DeleteZone", uuid=zone)
    assert (await send("QueryZone", conditions=[]))["inventories"] == []
    await client.logout()


asyncio.run(main(*sys.argv[1:]))
