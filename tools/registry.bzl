"""Fetch one pinned package through its registry's ordinary client, check its digest, unpack it.

$WEFT_DISTDIR (default: ~/.cache/weft-dist) keeps every fetched archive and is looked at first, so a package crosses
the network once per machine and a prepared folder makes a build work offline.
"""

def _run(rctx, cmd, env = {}):
    r = rctx.execute(cmd, environment = env, timeout = 600)
    if r.return_code:
        fail("%s\n%s\n%s" % (" ".join([str(c) for c in cmd]), r.stdout, r.stderr))
    return r.stdout.strip()

_SUFFIX = {"npm": ".tgz", "crate": ".crate", "pypi": ".whl"}

def _crate(rctx, name, ver, fname):
    rctx.file("probe/Cargo.toml", '[package]\nname = "probe"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n%s = { version = "=%s", default-features = false }\n' % (name, ver))
    rctx.file("probe/src/lib.rs", "")
    home = str(rctx.path("cargo_home"))
    real = rctx.os.environ.get("CARGO_HOME", rctx.os.environ["HOME"] + "/.cargo")
    _run(rctx, ["bash", "-c", "mkdir -p '%s' && cp '%s'/config.toml '%s'/config '%s'/ 2>/dev/null; cd probe && cargo fetch --quiet" % (home, real, real, home)], {"CARGO_HOME": home})
    _run(rctx, ["bash", "-c", "cp cargo_home/registry/cache/*/%s . && rm -rf cargo_home probe" % fname])

def _impl(rctx):
    name, ver, kind = rctx.attr.package, rctx.attr.version, rctx.attr.kind
    fname = name.replace("@", "").replace("/", "-") + "-" + ver + _SUFFIX[kind]
    dist = rctx.os.environ.get("WEFT_DISTDIR", "") or rctx.os.environ["HOME"] + "/.cache/weft-dist"
    kept = dist + "/" + fname
    if rctx.path(kept).exists:
        _run(rctx, ["cp", kept, fname])
    elif kind == "npm":
        _run(rctx, ["npm", "pack", "--silent", name + "@" + ver])
    elif kind == "crate":
        _crate(rctx, name, ver, fname)
    else:
        _run(rctx, ["bash", "-c", "python3 -m pip download -q --no-deps --only-binary :all: -d . '%s==%s' && mv *.whl '%s'" % (name, ver, fname)])
    algo, want = rctx.attr.integrity.split("-", 1)
    got = _run(rctx, ["bash", "-c", "openssl dgst -%s -binary '%s' | base64 -w0" % (algo, fname)])
    if got != want:
        fail("%s: %s is %s, expected %s" % (fname, algo, got, want))
    _run(rctx, ["bash", "-c", "mkdir -p '%s' && cp -n '%s' '%s.%s' 2>/dev/null && mv -n '%s.%s' '%s' || true" % (dist, fname, kept, "tmp", kept, "tmp", kept)])
    if kind == "pypi":
        _run(rctx, ["python3", "-m", "zipfile", "-e", fname, "."])
    else:
        _run(rctx, ["tar", "xzf", fname, "--strip-components=1"])
    _run(rctx, ["rm", "-f", fname])
    for c in rctx.attr.post:
        _run(rctx, ["bash", "-ec", c])
    rctx.file("WORKSPACE", "")
    rctx.file("BUILD", rctx.read(rctx.attr.build_file))

registry_package = repository_rule(
    implementation = _impl,
    attrs = {
        "kind": attr.string(values = ["npm", "crate", "pypi"], mandatory = True),
        "package": attr.string(mandatory = True),
        "version": attr.string(mandatory = True),
        "integrity": attr.string(mandatory = True),
        "post": attr.string_list(),
        "build_file": attr.label(allow_single_file = True, mandatory = True),
    },
    environ = ["WEFT_DISTDIR", "CARGO_HOME"],
)
