"""Memory: what an idle sidecar takes, what 10,000 clusters that nobody calls add, and that looking at all their stats leaves nothing
behind (features.md A82)."""
from cases import *
from envoy_config import *
from loopback import *

CLUSTERS = 10_000
IDLE_KB = 12 * 1024
EACH_KB = 4


def resident_kb(pid):
    with open("/proc/%d/status" % pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def settled_kb(sidecar):
    """Resident memory once the sidecar has given back what starting took, which it does half a second after."""
    sizes = []

    def steady():
        sizes.append(resident_kb(sidecar.process.pid))
        return len(sizes) > 40 and max(sizes[-40:]) - min(sizes[-40:]) < 64
    wait_for("memory stands still", steady, 60)
    return sizes[-1]


def proxy(clusters):
    names = ["outbound|80||service-%d.default" % i for i in range(clusters)]
    return Sidecar(static([], [cluster(c, 1) for c in names]))


def test_idle_clusters_cost_little_also_when_their_stats_were_read():
    idle = proxy(0)
    base = settled_kb(idle)
    many = proxy(CLUSTERS)
    before = settled_kb(many)
    lines = {}
    for what in ("/stats", "/stats/prometheus", "/stats?format=json", "/stats"):
        status, body = many.admin(what)
        assert status == 200, (what, status)
        lines[what] = body.count("membership_total")
    assert all(n >= CLUSTERS for n in lines.values()), lines
    after = settled_kb(many)
    print("idle %d KiB; %d clusters: %.2f KiB each, %.2f after their stats were read" % (base, CLUSTERS, (before - base) / CLUSTERS, (after - base) / CLUSTERS))
    if not SANITIZED:
        assert base <= IDLE_KB, base
        assert before - base <= EACH_KB * CLUSTERS, (base, before)
        assert after - base <= EACH_KB * CLUSTERS, (base, before, after)


if __name__ == "__main__":
    main()
