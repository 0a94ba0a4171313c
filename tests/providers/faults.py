"""Faults that are no provider's in particular."""

from __future__ import annotations

from tests.providers.steps import Answer, Fails

HTML_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head>\n"
    b"<body><center><h1>502 Bad Gateway</h1></center><hr><center>nginx</center></body></html>\n"
)


def redirects(location: str, status: int = 302) -> Fails:
    """A redirect elsewhere, which a gateway that holds keys must not follow."""
    return Fails(status, b"", headers={"location": location})


def html_page(status: int = 200) -> Answer:
    """A load balancer's page where an answer was expected."""
    return Answer(status=status, raw_body=HTML_PAGE, content_type="text/html", framing="length")
