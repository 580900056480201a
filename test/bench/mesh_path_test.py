"""The arithmetic of tools/bench mesh-path: what is added, when a row is void, what is ours of the cores."""

import json
import unittest

import mesh_path


def output(requests=4000, errors=0, non2xx=0, p50=100):
    """What RUN prints for a run of 4 s: 0.4 s of proxies' CPU, 0.1 s of the backend's, 0.2 s of the server's, 3 s of both cores' in all."""
    load = {"requests": requests, "errors": errors, "non2xx": non2xx, "p50": p50, "p99": 10 * p50, "p999": 20 * p50, "load_cpu": 0.3}
    return "START\n1000 1000 1000 500 0\n%s\n400001000 100001000 200001000 800 8\n" % json.dumps(load)


class Reading(unittest.TestCase):
    def test_cpu_a_request_and_shares_of_both_cores(self):
        r = mesh_path.reading(output(), 1000, 4, 100)
        self.assertIsNone(r["void"])
        self.assertAlmostEqual(r["cpu"], 100)
        self.assertAlmostEqual(r["server_cpu"], 50)
        self.assertAlmostEqual(r["busy"], 1.0 / 8)
        self.assertAlmostEqual(r["foreign"], 2.0 / 8)
        self.assertAlmostEqual(r["steal"], 0.08 / 8)

    def test_any_failure_voids_and_falling_behind_is_told(self):
        self.assertEqual(mesh_path.reading(output(errors=1), 1000, 4, 100)["void"], "1 failed, 0 non-2xx")
        self.assertEqual(mesh_path.reading(output(non2xx=2), 1000, 4, 100)["void"], "0 failed, 2 non-2xx")
        self.assertTrue(mesh_path.reading(output(requests=3900), 1000, 4, 100)["late"])
        self.assertFalse(mesh_path.reading(output(requests=3970), 1000, 4, 100)["late"])

    def test_a_load_that_did_not_run_is_said(self):
        with self.assertRaises(mesh_path.Unmet):
            mesh_path.reading("connect: refused\n", 1000, 4, 100)


class Table(unittest.TestCase):
    def runs(self, **of):
        return [{"rate": 1000, "rep": rep, "kind": kind, **mesh_path.reading(output(**{"p50": p50} if isinstance(p50, int) else p50), 1000, 4, 100)}
                for kind, values in of.items() for rep, p50 in enumerate(values)]

    def test_what_is_added_is_taken_within_a_repetition(self):
        text = mesh_path.table(self.runs(none=[100, 200, 300], weft=[150, 260, 370], envoy=[200, 320, 440]), [1000])
        self.assertIn("| 1000 | weft | 260 | 2600 | 5200 | 60 (50–70) |", text)
        self.assertIn("of what is added: p50 0.50 (<= 0.5 in 3 of 3)", text)

    def test_a_repetition_in_which_one_fell_behind_does_not_count(self):
        text = mesh_path.table(self.runs(none=[100, 200], weft=[150, 260], envoy=[{"requests": 3000, "p50": 900}, 320]), [1000])
        self.assertIn("| 1000 | weft | 260 | 2600 | 5200 | 60 (60–60) |", text)
        self.assertIn("fell behind, so that its repetition does not count: envoy in 1 of 2", text)
        self.assertNotIn("1000/s: sidecar", mesh_path.table(self.runs(none=[100], weft=[150], envoy=[{"requests": 3000}]), [1000]))

    def test_ours_falling_behind_and_failures_in_a_late_repetition_are_not_left_out(self):
        text = mesh_path.table(self.runs(none=[100, 200], weft=[150, {"requests": 3000}], envoy=[200, 320]), [1000])
        self.assertIn("1000/s: void: weft: fell behind in 1 of 2", text)
        text = mesh_path.table(self.runs(none=[100, 200], weft=[150, {"errors": 2}], envoy=[200, {"requests": 3000}]), [1000])
        self.assertIn("1000/s: void: weft: 2 failed, 0 non-2xx", text)

    def test_a_void_row_has_no_ratio(self):
        text = mesh_path.table(self.runs(none=[100], weft=[{"errors": 3}], envoy=[200]), [1000])
        self.assertIn("| 1000 | weft VOID |", text)
        self.assertIn("1000/s: void: weft: 3 failed, 0 non-2xx", text)
        self.assertNotIn("of what is added", text)


unittest.main()
