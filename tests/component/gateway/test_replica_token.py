"""What a gateway shows replicas of itself, and what becomes of one that has the wrong key."""

from pathlib import Path

from aixcoder_serving.protocol import replica_token
from tests.component.gateway.conftest import StartReplica, Table, heard, running, script

KEY = bytes(range(32))


async def test_a_gateway_shows_each_deployments_replicas_its_token(
    table: Table, start_replica: StartReplica, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(KEY)
    replica = start_replica("a")
    table.serve(replica.address)
    async with running(table, data_key=tmp_path / "key") as gateway:
        await heard(gateway, 1)
        client = await gateway.client(api_key="a-client's-own")
        await client.completions.create(model="tiny", prompt=script(all_={"deltas": 1}))
    [seen] = await replica.seen()
    assert seen["headers"]["authorization"] == f"Bearer {replica_token(KEY, 'tiny')}"


async def test_a_refused_token_is_no_fault_of_the_client(table: Table, start_replica: StartReplica) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    async with running(table) as gateway:
        await heard(gateway, 1)
        body = {"prompt": script(all_={"refuse": 401})}
        async with gateway.session.post(f"{gateway.url}/v1/completions", json=body) as response:
            assert response.status == 502
    [seen] = await replica.seen()
    assert "authorization" not in seen["headers"]
