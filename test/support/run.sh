#!/bin/sh
# Runs a Python test with what the tests share on its path; no Python toolchain has to be configured for Bazel.
# Bazel's own PATH lacks the folders in which nft is.
PATH=$PATH:/usr/sbin:/sbin PYTHONPATH=test/support exec python3 -B "$@"
