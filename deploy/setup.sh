#!/usr/bin/env bash
# Install what Nameward needs from the distribution, build .venv/ beside this folder, then run the demo or
# the tests. For Debian 12, Debian 13 and Ubuntu 24.04; run it as root, as often as you like.
#
#   bash deploy/setup.sh demo [--json] [--keep]   the containment scenario, on real packets; --nodes 2: two nodes
#   bash deploy/setup.sh test                     everything that is tested
#   bash deploy/setup.sh bench                    what an answer costs, beside dnsmasq and Unbound
#   bash deploy/setup.sh install                  only install
#
# It starts no daemon and leaves none enabled that was not there before. It uses apt's and pip's own
# configuration for where packages come from.
set -euo pipefail

readonly RUN_PACKAGES=(python3 python3-venv python3-nftables python3-seccomp nftables netbase iproute2
    util-linux ca-certificates)
readonly DEMO_PACKAGES=(nsd redis-server)
readonly TEST_PACKAGES=(make gcc libc6-dev musl-tools bind9-dnsutils knot-dnsutils conntrack iptables tcpdump
    nodejs procps)
readonly BENCH_PACKAGES=(make gcc libc6-dev dnsmasq-base unbound dnsperf bind9-dnsutils procps)
readonly POLICY=/usr/sbin/policy-rc.d
readonly PYTHON=/usr/bin/python3

die() {
    printf 'setup: %s\n' "$1" >&2
    exit "${2:-1}"
}

say() { printf 'setup: %s\n' "$1" >&2; }

is_installed() { [[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]; }

check_machine() {
    [[ "$(id -u)" == 0 ]] || die "run this as root: it installs packages and makes network namespaces" 2
    command -v apt-get >/dev/null && command -v dpkg-query >/dev/null ||
        die "apt-get was not found: this needs Debian 12, Debian 13 or Ubuntu 24.04; elsewhere see CONTRIBUTING.md" 2
}

# Keep packages' daemons from being started while we install; whoever had a policy keeps it.
hold_daemons() {
    if [[ -e $POLICY || -L $POLICY ]]; then
        mv "$POLICY" "$POLICY.nameward-setup"
    fi
    trap release_daemons EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
}

release_daemons() {
    rm -f "$POLICY"
    if [[ -e $POLICY.nameward-setup || -L $POLICY.nameward-setup ]]; then
        mv "$POLICY.nameward-setup" "$POLICY"
    fi
    trap - EXIT INT TERM HUP
}

install_packages() {
    local package missing=()
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    local apt=(apt-get -qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3)
    "${apt[@]}" update || die "apt-get update failed: is there a network, and are apt's sources right?"
    hold_daemons
    "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get could not install ${missing[*]}; its message stands above"
    release_daemons
    for package in nsd redis-server unbound; do
        [[ " ${missing[*]} " != *" $package "* ]] || disable_daemon "$package"
    done
}

# The demo and the benchmark run name servers of their own in namespaces; the host did not ask for one.
disable_daemon() {
    if command -v systemctl >/dev/null; then
        systemctl --quiet disable "$1.service" 2>/dev/null || true
    elif command -v update-rc.d >/dev/null; then
        update-rc.d "$1" disable >/dev/null 2>&1 || true
    fi
}

# Network namespaces and nftables with timeouts: without them there is no lab.
lab_problem() {
    if ! unshare --net true 2>/dev/null; then
        echo "network namespaces cannot be made here (a container without CAP_SYS_ADMIN?)"
    elif ! unshare --net nft -f - <<<'table inet probe { set s { type ipv4_addr; flags timeout; }; }' 2>/dev/null; then
        echo "this kernel has no usable nftables (modprobe nf_tables, or a kernel with CONFIG_NF_TABLES)"
    fi
}

# build_venv EXTRAS: once for each state of pyproject.toml and Python; a second run needs no network.
build_venv() {
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$("$PYTHON" --version) is too old: Nameward needs 3.11 (Debian 12, Debian 13 or Ubuntu 24.04)"
    if ! .venv/bin/python -c '' 2>/dev/null ||
        ! grep -qs '^include-system-site-packages = true' .venv/pyvenv.cfg ||
        [[ "$(.venv/bin/python --version)" != "$("$PYTHON" --version)" ]]; then
        say "making .venv with $("$PYTHON" --version)"
        "$PYTHON" -m venv --clear --system-site-packages .venv ||
            die "the virtual environment could not be made; its message stands above"
    fi
    local stamp wanted
    stamp=".venv/installed${1:+-$1}"
    wanted="$(pwd) $("$PYTHON" --version) $(sha256sum <pyproject.toml)"
    if [[ -e $stamp && "$(<"$stamp")" == "$wanted" ]]; then
        return
    fi
    say "installing Python packages"
    .venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check --editable ".${1:+[$1]}" ||
        die "pip could not install the Python packages: is there a network, and is pip's configuration right?"
    printf '%s\n' "$wanted" >"$stamp"
}

main() {
    local what="${1:-}" problem
    (($#)) && shift
    [[ $what == demo || $what == test || $what == bench || $what == install ]] ||
        die "say what to run: bash deploy/setup.sh demo, test, bench or install" 2
    check_machine
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    install_packages "${RUN_PACKAGES[@]}"
    problem="$(lab_problem)"
    case $what in
    demo)
        [[ -z $problem ]] || die "the demo cannot run here: $problem"
        install_packages "${DEMO_PACKAGES[@]}"
        build_venv ""
        exec .venv/bin/nameward demo "$@"
        ;;
    test)
        install_packages "${DEMO_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
        build_venv dev
        if [[ -n $problem ]]; then
            say "tests on the real kernel will be skipped: $problem"
        else
            export LAB=required
        fi
        exec make check
        ;;
    bench)
        [[ -z $problem ]] || die "the benchmark cannot run here: $problem"
        install_packages "${DEMO_PACKAGES[@]}" "${BENCH_PACKAGES[@]}"
        build_venv ""
        exec make bench
        ;;
    install)
        build_venv ""
        say "installed: $(pwd)/.venv/bin/nameward"
        ;;
    esac
}

main "$@"
