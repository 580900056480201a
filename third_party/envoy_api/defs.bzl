"""All Envoy API messages as one static library, compiled in a few large units."""

def _impl(ctx):
    gen = ctx.actions.declare_directory(ctx.attr.hdr_dir)
    shards = [ctx.actions.declare_file("%s_shard%d.cc" % (ctx.label.name, i)) for i in range(ctx.attr.shards)]
    ctx.actions.run_shell(
        command = """set -e
roots=$1; out=$2; list=$3; hot=$4; shift 4
tmp=$(mktemp -d); for r in ${roots//,/ }; do cp -rL "$PWD/$r"/. $tmp/; done; chmod -R u+w $tmp
if [ -s "$hot" ]; then
  grep -vxFf "$hot" "$list" | sed "s#^#$tmp/#" | xargs sed -i -E '0,/^package /s/^(package [^;]*;)/\\1\\noption optimize_for = CODE_SIZE;/'
fi
/usr/bin/protoc -I$tmp -I/usr/include --cpp_out="$out" --descriptor_set_out=/dev/null $(cat "$list") 2>$tmp/log || { cat $tmp/log >&2; exit 1; }
python3 third_party/envoy_api/shard.py "$out" "$@"
find "$out" -name '*.pb.cc' -delete; rm -rf $tmp""",
        arguments = [",".join([r.dirname for r in ctx.files.roots]), gen.path, ctx.file.list.path, ctx.file.hot.path] + [s.path for s in shards],
        inputs = ctx.files.srcs + [ctx.file.list, ctx.file.hot, ctx.file._shard] + ctx.files.roots,
        outputs = [gen] + shards,
        mnemonic = "EnvoyApi",
    )
    return [DefaultInfo(files = depset([gen] + shards)), OutputGroupInfo(h = depset([gen]), cc = depset(shards))]

envoy_api_gen = rule(
    implementation = _impl,
    attrs = {
        "srcs": attr.label_list(allow_files = True),
        "roots": attr.label_list(allow_files = True),
        "list": attr.label(allow_single_file = True),
        "hot": attr.label(allow_single_file = True),
        "shards": attr.int(default = 16),
        "hdr_dir": attr.string(default = "gen"),
        "_shard": attr.label(default = "//third_party/envoy_api:shard.py", allow_single_file = True),
    },
)

def _grpc_impl(ctx):
    gen = ctx.actions.declare_directory(ctx.attr.hdr_dir)
    cc = ctx.actions.declare_file(ctx.label.name + ".cc")
    ctx.actions.run_shell(
        command = """set -e
roots=$1; out=$2; cc=$3; shift 3
tmp=$(mktemp -d); for r in ${roots//,/ }; do cp -rL "$PWD/$r"/. $tmp/; done
/usr/bin/protoc -I$tmp -I/usr/include --grpc_out="$out" --plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin "$@" 2>$tmp/log || { cat $tmp/log >&2; exit 1; }
find "$out" -name '*.grpc.pb.cc' | sort | xargs cat > $cc
find "$out" -name '*.cc' -delete; rm -rf $tmp""",
        arguments = [",".join([r.dirname for r in ctx.files.roots]), gen.path, cc.path] + ctx.attr.services,
        inputs = ctx.files.srcs + ctx.files.roots,
        outputs = [gen, cc],
        mnemonic = "EnvoyGrpc",
    )
    return [DefaultInfo(files = depset([gen, cc])), OutputGroupInfo(h = depset([gen]), cc = depset([cc]))]

# The grpc++ stubs of the named services: linked by programs on OpenSSL (server, tools), never by the sidecar.
envoy_grpc_gen = rule(
    implementation = _grpc_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = True),
        "roots": attr.label_list(allow_files = True),
        "services": attr.string_list(),
        "hdr_dir": attr.string(default = "grpc"),
    },
)
