"""The certificate of the metrics' pages: they are served over TLS by it.

Owns its context, and when the files are read again. Never listens. Invariant: files that are no certificate
change nothing while there is a good one.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocolFactory, IReactorTime
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer


def over_tls(
    pages: IProtocolFactory, cert_file: str, key_file: str, reactor: IReactorTime
) -> TLSMemoryBIOFactory:
    """Return the factory of the pages over TLS; ``OSError`` if the files cannot be used."""
    try:
        certificate = _Certificate(cert_file, key_file)
    except SSL.Error as error:
        raise OSError(repr(error)) from None
    return TLSMemoryBIOFactory(certificate, isClient=False, wrappedFactory=pages, clock=reactor)


@implementer(IOpenSSLServerConnectionCreator)
class _Certificate:
    """The certificate of the pages, read again when its files change. Twisted asks for each connection."""

    def __init__(self, cert_file: str, key_file: str) -> None:
        self._files = cert_file, key_file
        self._seen: tuple[int, ...] = ()
        self._context = self._loaded()

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N802, ARG002
        """Twisted: a connection by the files as they are; by the last good ones while they are none."""
        with contextlib.suppress(OSError, SSL.Error):
            self._context = self._loaded()
        return SSL.Connection(self._context, None)

    def _loaded(self) -> SSL.Context:
        seen = tuple(Path(file).stat().st_mtime_ns for file in self._files)
        if seen == self._seen:
            return self._context
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.use_certificate_chain_file(self._files[0])
        context.use_privatekey_file(self._files[1])
        context.check_privatekey()
        self._seen = seen
        return context
