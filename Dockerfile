# One image, its role by the command: `node` (default), `enforcer`, `resolver`, `controller`, `bridge`, `gate`, or
# any command that asks. docs/kubernetes.md says which capabilities each role needs; the resolver needs none.
# BASE is any Debian 13 or 12 root file system; deploy/image/build.sh makes one where no registry of images is.
ARG BASE=docker.io/library/debian:bookworm-slim

# What runs: nftables and seccomp come from the distribution, so that their bindings match its libraries.
# netbase: names of protocols. nftables: for whoever looks at the rules by hand.
FROM ${BASE} AS runtime
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates netbase nftables python3 python3-nftables python3-seccomp \
    && rm -rf /var/lib/apt/lists/*

# What is needed to install it, and stays behind. Secrets (none is required): `ca`, certificates of a network
# that looks into TLS; `pip`, a pip.conf for a mirror.
FROM runtime AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml /src/
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
    && if [ -s /run/secrets/pip ]; then export PIP_CONFIG_FILE=/run/secrets/pip; fi \
    && export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    && python3 -m venv /build \
    && python3 -m venv --without-pip --system-site-packages /opt/nameward/.venv \
    && python3 -c 'import tomllib; print(*tomllib.load(open("/src/pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        >/src/dependencies \
    && /build/bin/pip install 'hatchling>=1.25' 'mypy>=1.14' 'setuptools>=68' \
    && /build/bin/pip --python /opt/nameward/.venv/bin/python install --no-compile --only-binary=:all: -r /src/dependencies
COPY README.md LICENSE /src/
COPY policy /src/policy
COPY resolver /src/resolver
COPY enforcer /src/enforcer
COPY deploy/compile.py /src/deploy/
COPY deploy/image/trim.sh deploy/image/strip.sh deploy/image/sbom.py /src/
# Compiled once, for a read-only file system; checked by nobody, for nobody can change it.
RUN /build/bin/pip wheel --quiet --no-cache-dir --no-deps --no-index --no-build-isolation -w /src/dist /src \
    && /build/bin/pip --python /opt/nameward/.venv/bin/python install \
        --no-cache-dir --no-compile --no-deps --no-index --root-user-action=ignore /src/dist/*.whl \
    && /build/bin/python /src/deploy/compile.py --into "$(echo /opt/nameward/.venv/lib/python3*/site-packages)" \
    && sh /src/trim.sh /opt/nameward/.venv \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/nameward/.venv

FROM runtime AS whole
COPY --from=build /opt/nameward /opt/nameward
COPY --from=build /src/strip.sh /src/sbom.py /src/
RUN sh /src/strip.sh \
    && /opt/nameward/.venv/bin/python /src/sbom.py >/usr/share/nameward/sbom.cdx.json \
    && rm -rf /src

FROM scratch
COPY --from=whole / /
ENV PATH=/opt/nameward/.venv/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1
LABEL org.opencontainers.image.title=nameward \
    org.opencontainers.image.licenses=Apache-2.0 \
    org.opencontainers.image.description="DNS-policy resolver and nftables enforcer for Kubernetes"
ENTRYPOINT ["/opt/nameward/.venv/bin/nameward"]
CMD ["node"]
