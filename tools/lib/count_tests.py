#!/usr/bin/env python3
"""Adds up single test cases and prints the closing line.

    count_tests.py [--skip "name: why"]... FILE.json...

FILE is a Bazel build event file (each test target's test.xml is read: one gtest case counts as one) or a scenario
report ({"scenarios": [{"name", "result": "passed|failed|skipped", "detail"}]}). Failures and skips are named; the last
line is "N passed, N failed" or "N passed, N failed, N skipped". Exit code 1 when something failed, or nothing ran.
"""

import json
import sys
import urllib.parse
import xml.etree.ElementTree as ET


class Count:
    def __init__(self):
        self.passed = 0
        self.failed = []
        self.skipped = []


def case_result(case):
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    # gtest writes result="skipped" (and a <skipped> child); a disabled test is status="notrun".
    if case.find("skipped") is not None or case.get("result") == "skipped":
        return "skipped"
    if case.get("status") == "notrun":
        return "disabled"
    return "passed"


def add_xml(count, label, path, target_failed):
    failed_before = len(count.failed)
    cases = 0
    try:
        root = ET.parse(path).getroot()
        for case in root.iter("testcase"):
            name = "%s %s" % (label, ".".join(x for x in (case.get("classname"), case.get("name")) if x))
            result = case_result(case)
            if result == "passed":
                count.passed += 1
            elif result == "failed":
                count.failed.append(name)
            elif result == "skipped":
                why = case.find("skipped")
                text = (why.get("message") or "").strip().split("\n")[-1] if why is not None else ""
                count.skipped.append(name + (": " + text if text else ""))
            cases += 1
    except (ET.ParseError, OSError):
        pass
    # A crash or a time-out after the last case, or before any report, is a failure of the target itself.
    if target_failed and len(count.failed) == failed_before:
        count.failed.append(label + " (no failing case in its report: crash or time-out)")
    elif not target_failed and cases == 0:
        count.passed += 1


def add_bazel(count, path):
    results = {}
    broken = []
    with open(path) as f:
        for line in f:
            event = json.loads(line)
            ident = event.get("id", {})
            if "testResult" in ident and "testResult" in event:
                r = event["testResult"]
                outputs = {o["name"]: o.get("uri", "") for o in r.get("testActionOutput", [])}
                key = (ident["testResult"]["label"], ident["testResult"].get("run", 0), ident["testResult"].get("shard", 0))
                results[key] = (r.get("status", ""), outputs.get("test.xml", ""))
            elif "targetCompleted" in ident and not event.get("completed", {}).get("success") and "aborted" not in event:
                label = ident["targetCompleted"]["label"]
                if label not in broken:
                    broken.append(label)
            elif "aborted" in event and event["aborted"].get("reason") in ("ANALYSIS_FAILURE", "LOADING_FAILURE"):
                label = next((v.get("label") for v in ident.values() if isinstance(v, dict) and v.get("label")), None)
                if label and label not in broken:
                    broken.append(label)
    for (label, _, _), (status, uri) in sorted(results.items()):
        file = urllib.parse.unquote(urllib.parse.urlparse(uri).path)
        add_xml(count, label, file, status not in ("PASSED", "FLAKY"))
    for label in broken:
        if not any(label == key[0] for key in results):
            count.failed.append(label + " (does not build)")


def main(argv):
    count = Count()
    files = []
    args = iter(argv)
    for a in args:
        if a == "--skip":
            count.skipped.append(next(args))
        else:
            files.append(a)
    for path in files:
        with open(path) as f:
            head = f.read(64)
        if '"scenarios"' in head:
            with open(path) as f:
                for s in json.load(f)["scenarios"]:
                    named = s["name"] + (": " + s["detail"] if s.get("detail") else "")
                    if s["result"] == "passed":
                        count.passed += 1
                    else:
                        (count.failed if s["result"] == "failed" else count.skipped).append(named)
        else:
            add_bazel(count, path)
    print()
    for name in count.skipped:
        print("SKIPPED", name)
    for name in count.failed:
        print("FAILED ", name)
    line = "%d passed, %d failed" % (count.passed, len(count.failed))
    if count.skipped:
        line += ", %d skipped" % len(count.skipped)
    print(line)
    return 1 if count.failed or count.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
