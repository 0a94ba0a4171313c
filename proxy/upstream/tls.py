"""Whose certificate a provider may show: what stands behind `ssl_verify`."""

from __future__ import annotations

import ssl

import httpx

from proxy.types import Trust


def context_of(trust: Trust | None) -> ssl.SSLContext:
    """
    Return what TLS is spoken with: None is the usual trust, and `SSL_CERT_FILE` where that is set.

    It is slow to make: whoever connects keeps it.
    """
    if trust is None:
        # certifi's, since slim images have no certificates of their own.
        return httpx.create_ssl_context()
    if not trust.anybody:
        return ssl.create_default_context(cadata=trust.authorities)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
