"""What Helm does with the release: its test, an uninstall, an install over what that left.

The last file by name: what the audit log says of both programs' rights is said after all other tests.
"""

from __future__ import annotations

import json
import time

from e2e.demo import completion
from e2e.demo.release import CHART, RELEASE, SYSTEM_NAMESPACE
from e2e.rights import Use, used
from e2e.service import OPERATOR, Service, record

GATEWAY = f"system:serviceaccount:{SYSTEM_NAMESPACE}:{RELEASE}-gateway"
KEYS = (f"{RELEASE}-operator-key", f"{RELEASE}-data-key")
IN_SYSTEM = f"--namespace={SYSTEM_NAMESPACE}"
GUARD_SECONDS = 300.0


def keys(service: Service) -> list[tuple[str, str]]:
    """Uid and content of the operator's key and of the data key."""
    secrets = [service.kubernetes.get("secret", name, IN_SYSTEM) for name in KEYS]
    return [(secret["metadata"]["uid"], secret["data"]["key"]) for secret in secrets]


def remains(service: Service) -> list[str]:
    """What of the release is still in its namespace. The pod of `helm test` is a hook's, which Helm leaves."""
    kinds = "all,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets"
    found = service.kubernetes.get(kinds, IN_SYSTEM, "--selector=app.kubernetes.io/name=aixcoder").get("items", [])
    names = [f"{item['kind']}/{item['metadata']['name']}" for item in found]
    return [name for name in names if name != f"Pod/{RELEASE}-test"]


def install(service: Service) -> float:
    """Install the release as it was at the tests' beginning; seconds until Helm says that it is ready."""
    start = time.monotonic()
    arguments = [IN_SYSTEM, "--wait", "--timeout=5m", "--values=-"]
    service.kubernetes.helm("upgrade", "--install", RELEASE, str(CHART), *arguments, stdin=json.dumps(service.values))
    return time.monotonic() - start


def test_helm_test_asks_for_a_completion(service: Service) -> None:
    said = service.helm("test", RELEASE, IN_SYSTEM, "--logs", "--timeout=3m")
    assert "completed with" in said


def test_neither_program_was_refused_anything(service: Service) -> None:
    entries = [json.loads(line) for line in service.cluster.audit_log.read_text().splitlines()]
    uses: list[Use] = [used(entries, account) for account in (OPERATOR, GATEWAY)]
    assert all(use.rights for use in uses)
    assert [refused for use in uses for refused in use.refused] == []


def test_an_uninstall_leaves_what_serves_and_an_install_takes_it_over(service: Service) -> None:
    pods = {pod["metadata"]["uid"] for pod in service.deployment.pods()}
    kept = keys(service)
    assert kept[0][1] != kept[1][1]
    service.helm("uninstall", RELEASE, IN_SYSTEM, "--wait", "--timeout=3m")
    try:
        end = time.monotonic() + GUARD_SECONDS
        while left := remains(service):  # gateways drain
            assert time.monotonic() < end, left
            time.sleep(0.5)
        assert keys(service) == kept
    finally:
        seconds = install(service)
    assert keys(service) == kept
    record("install over what an uninstall left", seconds=seconds)
    service.deployment.wait_ready()
    assert completion.ask(service.url)
    assert {pod["metadata"]["uid"] for pod in service.deployment.pods()} == pods
