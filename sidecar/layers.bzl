"""Who may use the layers that know neither sockets nor BoringSSL (docs/architecture.md): those above them, and the programs
outside that read or write the same configuration."""

_LAYERS = ["http", "cel", "codec", "model", "route", "cluster", "filters", "upstream", "proxy", "dns", "xds", "telemetry", "admin", "server"]

def above(layer):
    return ["//sidecar/%s:__subpackages__" % name for name in _LAYERS[_LAYERS.index(layer) + 1:]] + [
        "//test:__subpackages__",
        "//tools:__subpackages__",
        "//xds_server:__subpackages__",
    ]
