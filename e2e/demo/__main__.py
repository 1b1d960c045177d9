"""`python -m e2e.demo up|down|images`: what `make demo`, `make demo-down` and `make images` do.

Read from the environment: IMAGES=node-local|full; CLUSTER=local|existing, the latter with KUBECONFIG, IMAGE_REGISTRY
and, where the images are pushed already, IMAGE_TAG.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from e2e.cluster import progress
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import DEFAULT_NAME
from e2e.cluster.local import LocalCluster
from e2e.demo import completion, existing, local, readiness
from e2e.demo.kubernetes import Kubernetes, built, installed
from e2e.demo.release import EXAMPLE, NAMESPACE, REPOSITORY, SYSTEM_NAMESPACE, install, uninstall

SHORT_REQUEST = {"prompt": "def push(self, item):\n    ", "suffix": "\n", "max_tokens": 32}


def up_local(name: str) -> None:
    """The demo on this machine, in the local cluster `name`."""
    cluster = LocalCluster(name)
    full = chosen("IMAGES", ("node-local", "full")) == "full"
    installation = local.prepare_full(cluster) if full else local.prepare_node_local(cluster)
    kubernetes = built(cluster.kubeconfig)
    resource = install(kubernetes, installation)
    url = local.forward(cluster)
    show(kubernetes, resource, url)
    named = "" if name == DEFAULT_NAME else f" --name {name}"
    shell = f'eval "$(python3 -m e2e.cluster env{named})"'
    print(instructions(url, f"{shell}   # kubectl, helm and $AIXCODER_URL for this shell"))


def up_existing(_name: str) -> None:
    """The demo on the cluster that KUBECONFIG names."""
    kubernetes = installed(existing.kubeconfig())
    resource = install(kubernetes, existing.prepare(kubernetes))
    with existing.forwarded(kubernetes) as url:
        show(kubernetes, resource, url)
    forward = " ".join(["kubectl", *existing.forward_command(8080)])
    print(instructions("http://127.0.0.1:8080", f"{forward} &\nAIXCODER_URL=http://127.0.0.1:8080"))


def down_local(name: str) -> None:
    """The cluster goes, and all that is in it."""
    LocalCluster(name).down()


def down_existing(_name: str) -> None:
    """What the demo put into the cluster goes; the pushed images stay in the registry."""
    uninstall(installed(existing.kubeconfig()))


def images_local(_name: str) -> None:
    """Build what IMAGES says: archives of the full images in the cache, or the node-local ones."""
    if chosen("IMAGES", ("node-local", "full")) == "node-local":
        made = local.build_node_local()
        progress.say(f"{made.control.reference}, {made.serving.reference}")
        return
    for archive in local.build_full():
        progress.say(f"{archive}: {archive.stat().st_size / 1e9:.1f} GB")


def images_existing(_name: str) -> None:
    """Build the full images and push them to IMAGE_REGISTRY."""
    tag = existing.push(existing.registry())
    progress.say(f"pushed; elsewhere: make demo CLUSTER=existing IMAGE_REGISTRY={existing.registry()} IMAGE_TAG={tag}")


def show(kubernetes: Kubernetes, resource: str, url: str) -> None:
    """Follow the resource to Ready, ask for a completion and print it."""
    progress.say(f"{resource} becomes ready:")
    readiness.follow(kubernetes, NAMESPACE, resource)
    with progress.step(f"A completion from {url}"):
        text = completion.ask(url)
    print(f"\n{completion.shown(text)}")


def instructions(url: str, shell: str) -> str:
    """What to do with a demo that is up."""
    body = json.dumps(SHORT_REQUEST)
    lines = [
        f"The demo is up: {url}",
        "",
        *(f"  {line}" for line in shell.splitlines()),
        f"  curl -s $AIXCODER_URL/v1/completions -H 'content-type: application/json' -d '{body}'",
        f"  kubectl get axd,pods --namespace {NAMESPACE}     # the operator and the gateway: {SYSTEM_NAMESPACE}",
        f"  kubectl edit axd --namespace {NAMESPACE}         # the resource: {EXAMPLE.relative_to(REPOSITORY)}",
        "  make demo-down                               # takes all of it away",
    ]
    return "\n".join(lines)


def chosen(variable: str, values: tuple[str, ...]) -> str:
    """The value of an environment variable, the first of `values` where it has none. Raises ClusterError for others."""
    value = os.environ.get(variable) or values[0]
    if value not in values:
        raise ClusterError(f"{variable} is one of {', '.join(values)}, not {value!r}.")
    return value


TARGETS = {"up": "make demo", "down": "make demo-down", "images": "make images"}
ACTIONS = {
    ("up", "local"): up_local,
    ("up", "existing"): up_existing,
    ("down", "local"): down_local,
    ("down", "existing"): down_existing,
    ("images", "local"): images_local,
    ("images", "existing"): images_existing,
}


def main() -> int:
    """Run one action; 0, or 1 with a sentence."""
    parser = argparse.ArgumentParser(prog="python -m e2e.demo", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("action", choices=tuple(TARGETS))
    parser.add_argument("--name", default=DEFAULT_NAME, help=f"which local cluster (default: {DEFAULT_NAME})")
    arguments = parser.parse_args()
    action = arguments.action
    start = time.monotonic()
    try:
        ACTIONS[action, chosen("CLUSTER", ("local", "existing"))](arguments.name)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    progress.say(f"{TARGETS[action]}: {time.monotonic() - start:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
