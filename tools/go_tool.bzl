"""Build one program of a Go module, its whole dependency graph pinned by a checked-in go.mod and go.sum.

For test tools only: without a Go toolchain, or without a way to fetch the modules, the repository is empty and says so,
and the tests that wanted the program are skipped by name. $WEFT_DISTDIR (default: ~/.cache/weft-dist) keeps what was built,
keyed by the pins and the toolchain.
"""

def _impl(rctx):
    rctx.file("WORKSPACE", "")
    rctx.file("BUILD", rctx.read(rctx.attr.build_file))
    rctx.symlink(rctx.attr.go_mod, "go.mod")
    rctx.symlink(rctx.attr.go_sum, "go.sum")
    go = rctx.which("go") or rctx.path("/usr/local/go/bin/go")
    if not go.exists:
        print("%s: no Go toolchain, its tests will be skipped" % rctx.name)
        return
    name = rctx.attr.package.split("/")[-1]
    dist = rctx.os.environ.get("WEFT_DISTDIR", "") or rctx.os.environ["HOME"] + "/.cache/weft-dist"
    r = rctx.execute(["bash", "-ec", """
        go=$1 package=$2 name=$3 dist=$4
        key=$({ "$go" version; cat go.mod go.sum; } | sha256sum | cut -c1-16)
        kept="$dist/$name-$key"
        if [ ! -x "$kept" ]; then
          mkdir -p "$dist"
          export GOPATH=$PWD/gopath GOFLAGS="-mod=readonly -modcacherw" GOTOOLCHAIN=local GOCACHE=$PWD/gocache
          "$go" build -trimpath -buildvcs=false -o built "$package"
          rm -rf gopath gocache
          mv built "$kept.$$" && mv "$kept.$$" "$kept"
        fi
        cp "$kept" "$name"
    """, "build", str(go), rctx.attr.package, name, dist], timeout = 1200)
    if r.return_code:
        print("%s could not be built, its tests will be skipped: %s" % (rctx.name, r.stderr[-300:]))

go_tool = repository_rule(
    implementation = _impl,
    attrs = {
        "package": attr.string(mandatory = True),
        "go_mod": attr.label(allow_single_file = True, mandatory = True),
        "go_sum": attr.label(allow_single_file = True, mandatory = True),
        "build_file": attr.label(allow_single_file = True, mandatory = True),
    },
    environ = ["WEFT_DISTDIR", "GOPROXY"],
)
