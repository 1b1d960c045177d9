"""A real Kubernetes on one Linux machine, on the standard library alone.

`python -m e2e.cluster up` starts it; `docs/local-cluster.md` says how it is laid out.
`controlplane.ControlPlane` is the smaller one for component tests: etcd and the API server, no node.
"""
