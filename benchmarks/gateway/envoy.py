"""Envoy before one server, as docs/front-proxies.md says: a router that is compared, and a proxy of the tests."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peer import installed

CONFIGURATION = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: clients
          stream_idle_timeout: 0s
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: gateway, timeout: 0s}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: gateway
    connect_timeout: 1s
    circuit_breakers: {{thresholds: [{{max_connections: 10000, max_pending_requests: 10000, max_requests: 10000}}]}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        common_http_protocol_options: {{idle_timeout: 60s}}
        explicit_http_config: {{http_protocol_options: {{}}}}
    load_assignment:
      cluster_name: gateway
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {gateway}}}}}}}
"""
"""To be formatted with the `port` to listen on and that of the `gateway`."""


def command(file: Path) -> list[str]:
    """How to start it with the configuration in `file`, on one core. Raises `PeerFailed` where it can not be installed.

    Without hot restart, which would let it wait for another one of its kind.
    """
    program = installed("envoy").parent / "envoy"
    return [str(program), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
