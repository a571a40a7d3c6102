"""``nameward bridge``: Obot's network policies become FirewallPolicies.

Owns the command's options and what must hold before it starts. What it does is ``enforcer.obot``'s.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import click

from enforcer.cli.options import UsageFailure
from enforcer.kube.access import Access, AccessError
from enforcer.obot import service
from enforcer.obot.domains import read_domains
from enforcer.obot.naming import AVIATRIX, OURS, is_label
from enforcer.obot.translation import Shape
from policy.manifest_shapes import is_namespace_name
from policy.runtime.kinds import Wrong, parse_listen

_FINGERPRINT = re.compile(r"(?:[0-9a-f]{64})?\Z")


@click.command()
@click.option("--storage-url", required=True, help="Obot's storage: https://SERVICE.NAMESPACE.svc:8443.")
@click.option("--token-file", required=True, help="Obot's token for network policy providers.")
@click.option("--namespace", required=True, help="The namespace of Obot's MCP servers.")
@click.option(
    "--storage-namespace", default="default", show_default=True, help="The namespace in the storage."
)
@click.option(
    "--certificate-sha256",
    "fingerprint",
    default="",
    help="SHA-256 of the storage's certificate, in hex; without it any certificate is taken.",
)
@click.option(
    "--always-allow", multiple=True, help="A domain that every server may reach that is not denied all."
)
@click.option("--managed-by", default=OURS, show_default=True, help="The label of the FirewallPolicies.")
@click.option(
    "--adopt",
    multiple=True,
    help=f"Another provider whose FirewallPolicies are taken over, such as {AVIATRIX}.",
)
@click.option("--listen", default="", help="[ADDRESS:]PORT of /livez, /readyz and /metrics.")
@click.option("--kubeconfig", default="", help="The cluster.  [default: the pod's own]")
@click.option("--context", default="", help="A context of the kubeconfig.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@click.option("--log-format", type=click.Choice(["json", "console"]), default="json")
@click.pass_context
def bridge(
    ctx: click.Context,
    *,
    storage_url: str,
    token_file: str,
    namespace: str,
    storage_namespace: str,
    fingerprint: str,
    always_allow: tuple[str, ...],
    managed_by: str,
    adopt: tuple[str, ...],
    listen: str,
    kubeconfig: str,
    context: str,
    log_level: str,
    log_format: str,
) -> None:
    """Carry Obot's network policies into the cluster; Obot's provider chart runs this."""
    options = service.Options(
        storage=_storage(storage_url, token_file, fingerprint),
        storage_namespace=storage_namespace,
        kubeconfig=kubeconfig,
        context=context,
        shape=Shape(_namespace(namespace), _label(managed_by), _patterns(always_allow)),
        succeeded=tuple(_label(each) for each in adopt),
        listen=_listen(listen),
        log_level=log_level,
        log_form=log_format,
    )
    try:
        access = service.cluster_access(options)
    except AccessError as error:
        raise UsageFailure(str(error)) from None
    ctx.exit(service.run(options, access))


def _storage(url: str, token_file: str, fingerprint: str) -> Access:
    parts = urlsplit(url.rstrip("/"))
    if parts.scheme != "https" or not parts.hostname:
        raise UsageFailure(
            f"--storage-url: {url!r:.200} is no storage; write https://SERVICE.NAMESPACE.svc:8443"
        )
    pin = fingerprint.replace(":", "").lower()
    if not _FINGERPRINT.match(pin):
        raise UsageFailure("--certificate-sha256: write 64 hexadecimal digits")
    return Access(server=url.rstrip("/"), token_file=token_file, insecure=not pin, fingerprint=pin)


def _namespace(text: str) -> str:
    if not is_namespace_name(text):
        raise UsageFailure(f"--namespace: {text!r:.80} is no name of a namespace")
    return text


def _label(text: str) -> str:
    if not is_label(text):
        raise UsageFailure(
            f"{text!r:.80} cannot be a label's value; write letters, digits and '-', at most 63"
        )
    return text


def _patterns(listed: tuple[str, ...]) -> tuple[str, ...]:
    found = read_domains(listed)
    if found.left_out:
        raise UsageFailure(f"--always-allow: {found.left_out[0]}")
    return found.patterns


def _listen(text: str) -> tuple[str, int] | None:
    """Return address and port; a port alone means every address of the pod."""
    if not text:
        return None
    try:
        return parse_listen(f"[::]:{text}" if text.isdecimal() else text)
    except (Wrong, ValueError):
        raise UsageFailure(f"--listen: {text!r:.80} is no [ADDRESS:]PORT") from None
