"""The demo: a cluster, the chart, one resource, one completion. `python -m e2e.demo up|down|images`."""
