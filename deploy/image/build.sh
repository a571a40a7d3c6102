#!/usr/bin/env bash
# Build the image with buildah, without a daemon, and where no registry of images can be reached.
#
#   bash deploy/image/build.sh OUT.tar [NAME:TAG]   an archive that docker load and ctr images import take
#
# Needs root, buildah and mmdebstrap (apt-get install buildah mmdebstrap). BASE=IMAGE builds on that image instead of
# a root file system of the distribution's packages. SUITE=trixie: on Debian 13; its newer nft makes tables on which a
# Debian 12 host's own nft 1.0.6 crashes when it lists them. PLATFORM=linux/arm64 needs qemu-user-static on another
# machine. Bases, layers and the last archive are kept under
# ${XDG_CACHE_HOME:-~/.cache}/nameward-image; an image whose files have not changed is not built again.
set -euo pipefail

die() {
    printf 'image: %s\n' "$1" >&2
    exit "${2:-1}"
}
say() { printf 'image: %s\n' "$1" >&2; }

(($# >= 1)) || die "say where to write it: bash deploy/image/build.sh OUT.tar [NAME:TAG]" 2
[[ "$(id -u)" == 0 ]] || die "run this as root: it makes a root file system" 2
for program in buildah mmdebstrap; do
    command -v "$program" >/dev/null || die "$program was not found: apt-get install buildah mmdebstrap" 2
done

out="$(realpath -m "$1")"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
version="$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)"
name="${2:-nameward:$version}"
suite="${SUITE:-bookworm}"
platform="${PLATFORM:-linux/$(dpkg --print-architecture)}"
arch="${platform#linux/}"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/nameward-image"
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9

export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
builder=(buildah --root "$cache/store" --runroot "$cache/run")
# Only what git would have: no byte code, nobody's editor files.
stamp="$name $platform ${BASE:-$suite} $(
    find Dockerfile .dockerignore pyproject.toml README.md LICENSE policy resolver enforcer deploy/compile.py deploy/image -type f \
        ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum | sha256sum
)"
kept="$cache/image-$arch.tar"
if [[ -e $kept && "$(cat "$kept.stamp" 2>/dev/null)" == "$stamp" ]]; then
    cp "$kept" "$out"
    exit
fi

base="${BASE:-}"
if [[ -z $base ]]; then
    base="localhost/nameward-base:$suite-$arch"
    if ! "${builder[@]}" inspect --type image "$base" >/dev/null 2>&1; then
        say "making a root file system of $suite ($arch)"
        mmdebstrap --quiet --variant=minbase --architectures="$arch" --include=ca-certificates \
            --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
            "$suite" "$cache/base.tar"
        container="$("${builder[@]}" from scratch)"
        "${builder[@]}" add --quiet "$container" "$cache/base.tar" / >/dev/null
        "${builder[@]}" config --arch "$arch" "$container"
        "${builder[@]}" commit --quiet "$container" "$base" >/dev/null
        "${builder[@]}" rm "$container" >/dev/null
        rm "$cache/base.tar"
    fi
fi

options=(--layers --network host --build-arg "BASE=$base" --platform "$platform" --pull=false --tag "$name")
for bundle in "${PIP_CERT:-}" /etc/ssl/certs/ca-certificates.crt; do
    if [[ -s $bundle ]]; then # this machine may be behind a network that looks into TLS
        options+=(--secret "id=ca,src=$bundle")
        break
    fi
done
for configuration in "${PIP_CONFIG_FILE:-}" "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf" /etc/pip.conf; do
    if [[ -s $configuration ]]; then
        options+=(--secret "id=pip,src=$configuration")
        break
    fi
done
say "building $name ($platform) on $base"
"${builder[@]}" build "${options[@]}" . >"$cache/build.log" 2>&1 || {
    tail -n 40 "$cache/build.log" >&2
    die "the build failed; all of it stands in $cache/build.log"
}
rm -f "$kept" "$kept.stamp"
"${builder[@]}" push --quiet "$name" "docker-archive:$kept:$name" >/dev/null
printf '%s' "$stamp" >"$kept.stamp"
"${builder[@]}" rmi --prune >/dev/null 2>&1 || true
cp "$kept" "$out"
say "$(du -h "$out" | cut -f1) in $out"
