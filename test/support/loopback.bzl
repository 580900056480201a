"""Tests in Python of the built programs."""

def loopback_test(name, data = [], size = "medium", **kwargs):
    """NAME.py, with the programs and files it wants as data."""
    native.sh_test(
        name = name,
        size = size,
        srcs = ["//test/support:run.sh"],
        args = ["$(location %s.py)" % name],
        data = [name + ".py", "//test/support:python"] + data,
        **kwargs
    )
