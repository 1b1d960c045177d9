"""What the cluster program says when it cannot go on."""

WAY_OUT = (
    "Without it, use a cluster you have: "
    "KUBECONFIG=… make demo CLUSTER=existing IMAGE_REGISTRY=… (docs/local-cluster.md)."
)


class ClusterError(Exception):
    """A sentence for the person at the keyboard: what was wrong, where, and what to do."""


class NotAvailableError(ClusterError):
    """Something this machine does not have and that the program cannot install; the message ends in the way out."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message} {WAY_OUT}")
