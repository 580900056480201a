"""Promises about policy: what is refused, and how it is said."""

from mesh import expect


def broken_policy(mesh):
    """A broken policy is refused with file, line, field and reason"""
    with open(mesh.dir + "/broken.yaml", "w") as f:
        f.write("apiVersion: weft/v1\nkind: Route\nmetadata: {name: cart}\nspec:\n  rules:\n  - name: x\n    timeout: soon\n    to:\n    - {version: v1, weihgt: 3}\n")
    r = mesh.weft("apply", "-f", mesh.dir + "/broken.yaml")
    expect(r.rc == 1, "exit code %d" % r.rc)
    for word in ("broken.yaml:", "timeout", "weihgt"):
        expect(word in r.err, "%r is not in: %s" % (word, r.err))
    expect(":7" in r.err or ":9" in r.err, "no line in: " + r.err)
    expect(mesh.weft("get", "route", "cart").rc == 1, "something of it was stored")
    return r.err.strip().splitlines()[-1].strip()


def command_line(mesh):
    """apply, get, diff, history, rollback and delete do what a kubectl user expects"""
    file = mesh.dir + "/t.yaml"
    with open(file, "w") as f:
        f.write("apiVersion: weft/v1\nkind: Traffic\nmetadata: {name: cart}\nspec:\n  connect_timeout: 2s\n")
    r = mesh.weft("diff", "-f", file)
    expect(r.rc == 1, "diff of something new: exit code %d %s" % (r.rc, r.err))
    r = mesh.weft("apply", "-f", file)
    expect(r.rc == 0 and r.out.strip() == "traffic/cart created", "apply: %r %s" % (r.out, r.err))
    expect(mesh.weft("apply", "-f", file).out.strip() == "traffic/cart unchanged", "applied twice it is not unchanged")
    expect(mesh.weft("diff", "-f", file).rc == 0, "diff of what is in force is not empty")
    r = mesh.weft("get", "traffic", "cart", "-o", "yaml")
    expect("connect_timeout: \"2s\"" in r.out, "get -o yaml: " + r.out)
    with open(file, "a") as f:
        f.write("  load_balancer: round_robin\n")
    expect(mesh.weft("apply", "-f", file).out.strip() == "traffic/cart configured", "a change is not 'configured'")
    r = mesh.weft("rollback")
    expect(r.rc == 0, "rollback: " + r.err)
    expect("round_robin" not in mesh.weft("get", "traffic/cart", "-o", "json").out, "rollback left the change")
    r = mesh.weft("history")
    expect(r.rc == 0 and "rollback" in r.out and "traffic/cart" in r.out, "history: " + r.out + r.err)
    r = mesh.weft("delete", "traffic", "cart")
    expect(r.rc == 0 and r.out.strip() == "traffic/cart deleted", "delete: %r %s" % (r.out, r.err))
    r = mesh.weft("get", "traffic", "cart")
    expect(r.rc == 1 and "NotFound" in r.err, "get of what is gone: %d %s" % (r.rc, r.err))
    r = mesh.weft("status")
    expect(r.rc == 0 and "checkout-" in r.out, "status: " + r.out + r.err)


PROMISES = [broken_policy, command_line]
