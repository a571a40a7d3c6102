# One image, its role by the command: `node` (default), `enforcer`, `resolver`, or any command that asks.
# enforcer and node need the host's network and CAP_NET_ADMIN, NET_BIND_SERVICE, SETUID, SETGID, SETPCAP,
# CHOWN and KILL; resolver on its own needs no capability, its own user and the enforcer's runtimeDir.
FROM debian:trixie-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml README.md LICENSE /src/
COPY policy /src/policy
COPY resolver /src/resolver
COPY enforcer /src/enforcer
RUN python3 -m venv --system-site-packages /opt/nameward/.venv \
    && /opt/nameward/.venv/bin/python -m pip install --no-cache-dir /src

FROM debian:trixie-slim
# nftables and seccomp come from the distribution: their bindings match its libraries. netbase: names of protocols.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates netbase nftables \
        python3 python3-nftables python3-seccomp \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 65353 --no-create-home --shell /usr/sbin/nologin nameward-resolver
COPY --from=build /opt/nameward /opt/nameward
ENV PATH=/opt/nameward/.venv/bin:$PATH
ENTRYPOINT ["/opt/nameward/.venv/bin/nameward"]
CMD ["node"]
