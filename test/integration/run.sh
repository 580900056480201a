#!/bin/bash
# Runs one of the Python tests beside this file with the programs Bazel built.
exec python3 -B "$(dirname "$0")/$1" "${@:2}"
