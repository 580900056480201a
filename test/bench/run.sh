#!/bin/sh
exec python3 -B test/bench/mesh_path_test.py
