"""A whole operator process, in this one, whose way to the API server breaks in ways that raise no error."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import yaml

from aixcoder_operator import process
from aixcoder_operator.context import Context
from aixcoder_operator.settings import OperatorSettings
from e2e.cluster.controlplane import ControlPlane
from tests.component.operator.apiproxy import ApiProxy
from tests.component.operator.conftest import MakeParent


class Running:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.port = 0

    async def reconcile(self, key: str, *, context: Context) -> float | None:
        self.calls.append(key)
        return None

    async def health(self) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/healthz") as answer:
            return answer.status, await answer.text()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < 60, f"never: {what}"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def running(namespace: str) -> AsyncIterator[Running]:
    settings = OperatorSettings.model_validate(
        {
            "servingImage": "x",
            "namespaces": [namespace],
            "gateway": {"namespace": namespace},
            "lease": {"namespace": namespace},
            "port": 0,
        }
    )
    stop, state = asyncio.Event(), Running()

    def started(port: int) -> None:
        state.port = port

    task = asyncio.create_task(process.run(settings, bytes(32), bytes(32), state.reconcile, stop, started=started))
    try:
        yield state
    finally:
        stop.set()
        assert await task == 0


@pytest.fixture
def through_proxy(proxy: ApiProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ApiProxy:
    """KUBECONFIG leads to the proxy."""
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "proxy",
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        "clusters": [{"name": "proxy", "cluster": {"server": proxy.configuration.host}}],
        "users": [{"name": "proxy", "user": {}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig))
    monkeypatch.setenv("KUBECONFIG", str(path))
    return proxy


async def test_a_watch_that_shows_nothing_any_more_is_found_out_and_its_keys_are_worked_on(
    through_proxy: ApiProxy,
    make_parent: MakeParent,
    plane: ControlPlane,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "CHECK_SECONDS", 1.0)
    make_parent()
    async with running(namespace) as operator:
        await operator.until(lambda: operator.calls == [f"{namespace}/demo"], "the first call")
        await asyncio.sleep(3)
        assert await operator.health() == (200, "ok\n")
        assert len(operator.calls) == 1
        through_proxy.deaf = True
        plane.kubectl("annotate", "-n", namespace, "axd/demo", "note=1")
        await operator.until(lambda: len(operator.calls) > 1, "the change that the watch did not show")
        assert await operator.health() == (503, f"the watch misses changes, such as those of {namespace}/demo\n")


async def test_deployments_are_looked_at_again_after_a_while_though_nothing_happens(
    through_proxy: ApiProxy, make_parent: MakeParent, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "CHECK_SECONDS", 0.5)
    monkeypatch.setattr(process.Operator, "_next_resync", lambda self: time.monotonic() + 1.0)
    make_parent()
    async with running(namespace) as operator:
        await operator.until(lambda: len(operator.calls) >= 3, "two more looks")
        assert set(operator.calls) == {f"{namespace}/demo"}


async def test_a_broken_connection_is_made_again(
    through_proxy: ApiProxy, make_parent: MakeParent, namespace: str
) -> None:
    make_parent()
    async with running(namespace) as operator:
        await operator.until(lambda: len(operator.calls) == 1, "the first call")
        through_proxy.failures += [(503, {})] * 3
        through_proxy.cut()
        make_parent("other")
        await operator.until(lambda: f"{namespace}/other" in operator.calls, "the deployment made meanwhile")
