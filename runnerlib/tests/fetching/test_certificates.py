"""Certificates are checked against the name in the URL, whatever address it led to."""

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from runnerlib.fetching.addresses import FetchRules
from runnerlib.fetching.errors import FetchFailed, FetchRefused
from runnerlib.fetching.fetch import Fetch

#: In CI nothing may be skipped: there it fails without openssl.
pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None and not os.environ.get("CI"), reason="certificates are made with openssl"
)
NAME = "pictures.example"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("certificates")


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def authority(folder):
    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2")
    openssl(folder, *new, "-subj", "/CN=authority", "-addext", "keyUsage=critical,keyCertSign")
    return folder / "ca.pem"


@pytest.fixture(scope="module")
def signed(folder, authority):
    """A server's context with a certificate for a name."""

    def make(name: str, days: int = 2) -> ssl.SSLContext:
        stem = f"{name}{days}"
        (folder / "names").write_text(f"subjectAltName=DNS:{name}\n")
        new = ("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{stem}.key", "-out", f"{stem}.csr")
        openssl(folder, *new, "-subj", f"/CN={name}")
        sign = ("x509", "-req", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        openssl(folder, *sign, "-in", f"{stem}.csr", "-out", f"{stem}.pem", "-days", str(days))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / f"{stem}.pem", folder / f"{stem}.key")
        return context

    return make


@pytest.fixture
def fetch(resolve):
    resolve(["127.0.0.1"])
    return Fetch(FetchRules(allow_private="127.0.0.1", timeout_seconds=10))


@pytest.fixture
def trusted(authority, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))


def test_a_good_certificate_for_the_name_is_accepted(serve, signed, fetch, trusted):
    server = serve(tls=signed(NAME))
    found = fetch(f"https://{NAME}:{server.port}/to//bytes/3")
    assert (found.content, found.url) == (b"xxx", f"https://{NAME}:{server.port}/bytes/3")
    assert server.headers[0]["Host"] == f"{NAME}:{server.port}"


def test_a_certificate_for_another_name_is_refused(serve, signed, fetch, trusted):
    server = serve(tls=signed("other.example"))
    with pytest.raises(FetchRefused, match=r"has no valid certificate \(Hostname mismatch"):
        fetch(f"https://{NAME}:{server.port}/bytes/3")
    assert server.hits == []


def test_a_certificate_of_nobody_known_is_refused(serve, signed, fetch):
    server = serve(tls=signed(NAME))
    with pytest.raises(FetchRefused, match=r"has no valid certificate \((unable to get local issuer|self)"):
        fetch(f"https://{NAME}:{server.port}/bytes/3")
    assert server.hits == []


def test_an_expired_certificate_is_refused(serve, signed, fetch, trusted):
    server = serve(tls=signed(NAME, days=-1))
    with pytest.raises(FetchRefused, match=r"has no valid certificate \(certificate has expired"):
        fetch(f"https://{NAME}:{server.port}/bytes/3")
    assert server.hits == []


def test_https_does_not_lead_to_http(serve, signed, fetch, trusted):
    plain, server = serve(), serve(tls=signed(NAME))
    with pytest.raises(FetchRefused, match="leads from https to http"):
        fetch(f"https://{NAME}:{server.port}/to/{plain.url}/bytes/3")
    assert plain.hits == []


def test_a_server_without_tls_is_transient_and_gets_no_request(serve, fetch, trusted):
    server = serve()
    with pytest.raises(FetchFailed, match="cannot be reached"):
        fetch(f"https://{NAME}:{server.port}/bytes/3")
    assert server.hits == []
