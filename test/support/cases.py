"""Runs a test program's cases, classes of unittest and plain test_* functions alike, and reports each to Bazel's test.xml."""
import os, subprocess, sys, time, unittest
import xml.etree.ElementTree as ET

import loopback

__all__ = ["in_own_namespace", "main"]


class Report(unittest.TextTestResult):
    def __init__(self, *args):
        super().__init__(*args)
        self.suite = ET.Element("testsuite", name=os.path.basename(sys.argv[0]))

    def startTest(self, test):
        super().startTest(test)
        self.began = time.monotonic()

    def case(self, test, kind=None, text=""):
        # A function, like the set-up of a class, is known by its description.
        plain = isinstance(test, Function)
        name = str(test) if plain else getattr(test, "_testMethodName", str(test))
        place = self.suite.get("name").removesuffix(".py") if plain else type(test).__name__
        e = ET.SubElement(self.suite, "testcase", classname=place, name=name, time="%.3f" % (time.monotonic() - getattr(self, "began", time.monotonic())))
        if kind:
            ET.SubElement(e, kind, message="".join(c for c in str(text)[-4000:] if c >= " " or c in "\t\n"))

    def addSuccess(self, test):
        super().addSuccess(test)
        self.case(test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.failed(test, "failure", err)

    def addError(self, test, err):
        super().addError(test, err)
        self.failed(test, "error", err)

    def failed(self, test, kind, err):
        text = self._exc_info_to_string(err, test)
        self.case(test, kind, text)
        # Now: what a case of its own has left is gone when the next one begins.
        self.stream.writeln(text + "".join("--- %s\n%s\n" % (f, said[-4000:]) for f, said in loopback.logs()))

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.case(test, "skipped", reason)

    def printErrors(self):
        pass  # said when they happened


class Function(unittest.FunctionTestCase):
    """A case on its own: its programs end with it."""

    def __init__(self, function):
        super().__init__(function, tearDown=ended_cleanly)

    def __str__(self):
        return self._testFunc.__name__


def ended_cleanly():
    loopback.end_all()
    assert not (reports := loopback.sanitizer_reports()), reports


class Programs(unittest.TestCase):
    """Last: what classes of cases share has ended without a sanitizer's report, whatever it found (--config=asan, tsan, ubsan)."""

    def test_no_sanitizer_reports(self):
        ended_cleanly()


def main():
    """All cases, or those named on the command line (bazel test --test_arg=NAME)."""
    only, suite = sys.argv[1:], unittest.TestSuite()
    for name, value in vars(sys.modules["__main__"]).items():
        if isinstance(value, type) and issubclass(value, unittest.TestCase):
            suite.addTests(case for case in unittest.defaultTestLoader.loadTestsFromTestCase(value)
                           if not only or name in only or case._testMethodName in only)
        elif callable(value) and name.startswith("test_") and (not only or name in only):
            suite.addTest(Function(value))
    if loopback.SANITIZED:
        suite.addTest(Programs("test_no_sanitizer_reports"))
    if not suite.countTestCases():
        sys.exit("no such case: " + " ".join(only))
    result = unittest.TextTestRunner(verbosity=2, resultclass=Report).run(suite)
    if out := os.environ.get("XML_OUTPUT_FILE"):
        result.suite.set("tests", str(len(result.suite)))
        root = ET.Element("testsuites")
        root.append(result.suite)
        ET.ElementTree(root).write(out, "utf-8", xml_declaration=True)
    # Threads that still wait for a peer are not waited for.
    loopback.end_all()
    loopback.shutil.rmtree(loopback.TMP, ignore_errors=True)
    sys.stderr.flush(), sys.stdout.flush()
    os._exit(not result.wasSuccessful())


def in_own_namespace():
    """Begins the program anew in a network namespace of its own, for what needs fixed ports or drops packets."""
    if "WEFT_OWN_NAMESPACE" not in os.environ:
        subprocess.run(["unshare", "-n", "true"], check=True)
        os.environ["WEFT_OWN_NAMESPACE"] = "1"
        os.rmdir(loopback.TMP)  # it gets another one
        os.execvp("unshare", ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, "-B", *sys.argv])
