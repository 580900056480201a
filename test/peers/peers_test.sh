#!/bin/bash
exec python3 test/peers/peers_test.py "$@"
