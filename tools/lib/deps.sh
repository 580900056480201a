# Sourced by tools/test and tools/demo: makes sure that what the build, the tests and the demo use is installed.
# Fast when nothing is missing (one dpkg-query). Touches apt only when something is, as root or through sudo.

WEFT_BUILD_PACKAGES="bazel-bootstrap bazel-skylib bazel-rules-proto bazel-platforms bazel-rules-java
  g++ python3 git openssl ca-certificates zlib1g-dev libssl-dev
  libprotobuf-dev libprotoc-dev protobuf-compiler protobuf-compiler-grpc libgrpc++-dev libgrpc-dev
  libre2-dev libyaml-cpp-dev libgtest-dev libgmock-dev libbenchmark-dev libsqlite3-dev
  nlohmann-json3-dev libcli11-dev libcpp-httplib-dev libnftables-dev libcap2-bin"
WEFT_RUN_PACKAGES="nftables iproute2 util-linux redis-server redis-tools curl"
WEFT_TEST_PACKAGES="nghttp2-client wrk haproxy nginx-light tcpdump chromium python3-grpcio"
WEFT_FUZZ_PACKAGES="libclang-rt-19-dev"

weft_as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
    echo "weft: '$*' needs root, and sudo is not installed" >&2
    return 1
  fi
}

# weft_install PACKAGE...: installs those that dpkg does not list as installed.
weft_install() {
  local missing
  missing=$(
    comm -23 <(printf '%s\n' "$@" | sort -u) \
      <(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' | sort -u)
  )
  [ -z "$missing" ] && return 0
  echo "weft: installing" $missing >&2
  # Installing redis-server or haproxy must not start it on this machine: a policy file keeps daemons down meanwhile.
  (
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
      trap 'weft_as_root rm -f $policy' EXIT
      trap 'exit 130' INT TERM
      printf '#!/bin/sh\nexit 101\n' | weft_as_root tee $policy >/dev/null && weft_as_root chmod +x $policy
    fi
    weft_as_root apt-get update -qq >&2 || exit
    weft_as_root env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 $missing >&2
  )
}

# What fetches the pinned packages: an npm, a pip and a cargo, whoever provides them.
weft_install_all() {
  local want="$WEFT_BUILD_PACKAGES $WEFT_RUN_PACKAGES $*"
  # Debian's npm conflicts with a Node from elsewhere, so it is asked for only where there is none.
  command -v npm >/dev/null || want="$want npm"
  python3 -m pip --version >/dev/null 2>&1 || want="$want python3-pip"
  command -v cargo >/dev/null || [ -x "$HOME/.cargo/bin/cargo" ] || want="$want cargo-web"
  weft_install $want || return
  command -v cargo >/dev/null || PATH="$PATH:$HOME/.cargo/bin"
  export PATH
}
