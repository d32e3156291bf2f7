#!/bin/sh
# The protoc that etcd-client's build script asks for, on a machine that may have none.
#
# Order: the user's own PROTOC (cargo never calls this file then), protoc on PATH, the binary that the registry
# crate protoc-bin-vendored-<platform> carries. xtask's manifest names that crate, so Cargo.lock pins it with a
# checksum and `cargo fetch` and `cargo vendor` bring it along. A build that has not unpacked it yet (such as
# `cargo build -p sereno-core` in a fresh clone) unpacks it here.
set -eu

fail() {
    echo "protoc: $1" >&2
    echo "protoc: install it (Debian: protobuf-compiler, Homebrew: protobuf) or set PROTOC to its path." >&2
    exit 1
}

if system=$(command -v protoc); then
    exec "$system" "$@"
fi

case "$(uname -s)-$(uname -m)" in
    Linux-x86_64 | Linux-amd64) platform=linux-x86_64 triple=x86_64-unknown-linux-gnu ;;
    Linux-aarch64 | Linux-arm64) platform=linux-aarch_64 triple=aarch64-unknown-linux-gnu ;;
    Darwin-x86_64) platform=macos-x86_64 triple=x86_64-apple-darwin ;;
    Darwin-arm64) platform=macos-aarch_64 triple=aarch64-apple-darwin ;;
    *) fail "none on PATH, and none in the registry for $(uname -s) on $(uname -m)." ;;
esac
crate=protoc-bin-vendored-$platform
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

version=$(awk -v name="name = \"$crate\"" '$0 == name { getline; gsub(/version = |"/, ""); print; exit }' "$root/Cargo.lock")
[ -n "$version" ] || fail "none on PATH, and Cargo.lock does not name $crate."

# The usual place first: no process to start, no lock to wait for.
for protoc in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$crate-$version"/bin/protoc; do
    [ -x "$protoc" ] && exec "$protoc" "$@"
done

# Not unpacked, or kept elsewhere by a source replacement. `cargo metadata` unpacks it and says where. It takes the
# package cache's lock, which the cargo that waits for this script has released, and no lock on the target folder.
metadata=$("${CARGO:-cargo}" metadata --locked --format-version 1 --filter-platform "$triple" \
    --manifest-path "$root/xtask/Cargo.toml") || fail "none on PATH, and $crate $version could not be fetched (see above)."
manifest=$(printf '%s' "$metadata" | tr ',' '\n' | sed -n "s|^\"manifest_path\":\"\(.*/$crate-*[0-9.]*/Cargo\.toml\)\".*|\1|p")
protoc=${manifest%/Cargo.toml}/bin/protoc
[ -n "$manifest" ] && [ -x "$protoc" ] || fail "none on PATH, and $crate $version holds no binary that runs here."
exec "$protoc" "$@"
