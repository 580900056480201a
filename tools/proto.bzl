"""cc_proto: protoc (or, with stubs_only, grpc_cpp_plugin) into one cc_library.

    cc_proto(name = "mesh", srcs = ["weft/mesh/v1/mesh.proto"])
    cc_proto(name = "mesh_grpc", srcs = ["weft/mesh/v1/mesh.proto"], messages = ":mesh", stubs_only = True)

Imports and includes are written from the workspace root: "api/weft/mesh/v1/mesh.pb.h".
"""

def _gen_impl(ctx):
    ext = ".grpc.pb" if ctx.attr.stubs_only else ".pb"
    hdrs, ccs = [], []
    for f in ctx.files.srcs:
        stem = f.short_path[len(ctx.label.package) + 1:-len(".proto")]
        hdrs.append(ctx.actions.declare_file(stem + ext + ".h"))
        ccs.append(ctx.actions.declare_file(stem + ext + ".cc"))
    args = ctx.actions.args()
    args.add("--proto_path=.")
    args.add("--proto_path=/usr/include")
    if ctx.attr.stubs_only:
        args.add("--grpc_out=" + ctx.bin_dir.path)
        args.add("--plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin")
    else:
        args.add("--cpp_out=" + ctx.bin_dir.path)
    args.add_all([f.path for f in ctx.files.srcs])
    ctx.actions.run(
        executable = "/usr/bin/protoc",
        arguments = [args],
        inputs = ctx.files.srcs,
        outputs = ccs + hdrs,
        mnemonic = "Protoc",
        progress_message = "protoc " + str(ctx.label),
    )
    return [
        DefaultInfo(files = depset(ccs + hdrs)),
        OutputGroupInfo(cc = depset(ccs), h = depset(hdrs)),
    ]

_gen = rule(
    implementation = _gen_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".proto"]),
        "stubs_only": attr.bool(),
    },
)

def cc_proto(name, srcs, messages = None, stubs_only = False, **kw):
    _gen(name = name + "_gen", srcs = srcs, stubs_only = stubs_only)
    native.filegroup(name = name + "_cc", srcs = [name + "_gen"], output_group = "cc")
    native.filegroup(name = name + "_h", srcs = [name + "_gen"], output_group = "h")
    native.cc_library(
        name = name,
        srcs = [name + "_cc"],
        hdrs = [name + "_h"],
        copts = ["-w", "-O1"],
        alwayslink = not stubs_only,
        deps = [messages, "@system//:grpcpp"] if stubs_only else ["@system//:protobuf"],
        **kw
    )
