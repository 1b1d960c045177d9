"""The custom resource: its types, its effective defaults, and the CRD and reference page made from them.

The API server is where a resource is refused: rules stand in these types as CEL and go into the CRD. The types
themselves read whatever the server stored, fields of a newer CRD included, and hold what the operator relies on.
"""
