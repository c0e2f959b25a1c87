"""Who vouches for an https:// address, and why a connection to one did not come about. The only importer of certifi."""

from __future__ import annotations

import socket
import ssl
from functools import cache
from pathlib import Path

import certifi

from corpus.errors import ConfigError

# Numbers of OpenSSL's x509_vfy.h, which `ssl` passes on without naming them.
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_HOST_NAME, _OTHER_ADDRESS = 62, 64


@cache
def usual_authorities() -> ssl.SSLContext:
    """The public authorities. Loading them takes a while, so that all who need no others share them."""
    return ssl.create_default_context(cafile=certifi.where())


def authorities(ca_file: Path, *, and_the_usual: bool = False) -> ssl.SSLContext:
    """The authorities whose certificates are in a PEM file, and no others unless asked. Raises: ConfigError."""
    try:
        tls = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise ConfigError(f"ca_file {str(ca_file)!r}: holds no certificate in PEM form; name the authority's file") from error
    except OSError as error:
        raise ConfigError(f"ca_file {str(ca_file)!r}: {error.strerror}; name a file that can be read") from error
    if and_the_usual:
        tls.load_verify_locations(cafile=certifi.where())
    return tls


def why_not_connected(error: BaseException) -> str | None:
    """The reason that lies beneath a failed connection, in words that quote nothing; None where it is nothing special."""
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case ssl.SSLCertVerificationError(verify_code=code) if code in (_OTHER_HOST_NAME, _OTHER_ADDRESS):
                return "its certificate is for another name; give the address that the certificate names"
            case ssl.SSLCertVerificationError(verify_code=code) if code in (_NOT_YET_VALID, _EXPIRED):
                return "its certificate is not valid today; have it renewed, or set this machine's clock"
            case ssl.SSLCertVerificationError():
                return "its certificate is not trusted; name the authority's file in ca_file"
            case ssl.SSLError():
                return "the TLS handshake failed; does it speak https:// at this port?"
            case socket.gaierror():
                return "the name could not be resolved; is it right, and is there a network?"
        cause = cause.__cause__ or cause.__context__
    return None
