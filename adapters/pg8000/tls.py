"""TLS contexts, by libpq's settings.

Connections with the same settings share one context. Loading the system's authorities takes 20 ms,
and OpenSSL must not make a context while the process forks.

https://www.postgresql.org/docs/current/libpq-ssl.html
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any

from relet.core.fork import at_fork
from relet.core.locks import locked
from relet.core.outside import from_outside

from . import errors, settings

#: How many contexts are cached. A changed password or file makes another one.
_KEPT = 64
_contexts: OrderedDict[tuple[Any, ...], ssl.SSLContext] = OrderedDict()
_lock = RLock()


def context(parameters: Mapping[str, Any], mode: str) -> ssl.SSLContext:
    """Return the context for *parameters* and the ``sslmode`` *mode*.

    :raises OperationalError: a file is missing or invalid.
    """
    root = parameters.get("sslrootcert")
    default = _default("root.crt")
    if root is None and (mode.startswith("verify") or _file_version(default)):
        root = default
    if mode in ("allow", "prefer") or (mode == "require" and root is None):
        authorities, check_hostname = None, False
    elif root == "system":
        authorities, check_hostname = "system", True
    else:
        # A context with a file trusts only the authorities in it, not the system's.
        authorities, check_hostname = str(root), mode == "verify-full"
        if not Path(authorities).exists():
            raise errors.OperationalError(
                f'the root certificate file "{authorities}" does not exist: give one as '
                "sslrootcert, use the system's with sslrootcert=system, or change sslmode"
            )
    own = _own_certificate(parameters)
    files = (*_files(authorities), *own[:2], revoked := _default("root.crl"))
    key = (authorities, check_hostname, own, *map(_file_version, files))

    def find() -> ssl.SSLContext:
        if (found := _contexts.get(key)) is None:
            found = _make_context(authorities, check_hostname, own, revoked)
            _contexts[key] = found
            if len(_contexts) > _KEPT:
                _contexts.popitem(last=False)
        return found

    _hold_back_forks()
    return locked(_lock, find)


def _own_certificate(parameters: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the client's certificate, its key, or None if both are in one file, and a password.

    Where one is not given, libpq's default file is used if there is one.
    """
    certificate, key, password = map(parameters.get, ("sslcert", "sslkey", "sslpassword"))
    if certificate is None and _file_version(default := _default("postgresql.crt")):
        certificate = str(default)
    if (
        certificate is not None
        and key is None
        and _file_version(default := _default("postgresql.key"))
    ):
        key = str(default)
    return certificate, key, password


def _default(name: str) -> Path:
    return settings.in_home(".postgresql", name)


def _files(authorities: str | None) -> tuple[str | None, ...]:
    if authorities != "system":
        return (authorities,)
    paths = ssl.get_default_verify_paths()
    return paths.cafile, paths.capath


def _file_version(path: Any) -> tuple[Any, ...] | None:
    """Return a value that differs once a file has changed; None if there is no file."""
    try:
        found = Path(path).stat()
    except (OSError, TypeError, ValueError) as error:
        if from_outside(error):
            raise
        return None
    return str(path), found.st_mtime_ns, found.st_size, found.st_ino


def _make_context(
    authorities: str | None, check_hostname: bool, own: tuple[Any, ...], revoked: Path
) -> ssl.SSLContext:
    if authorities is None:
        # A context that verifies nothing needs no authorities.
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif authorities == "system":
        made = ssl.create_default_context()
    else:
        made = ssl.create_default_context(cafile=authorities)
        made.check_hostname = check_hostname
        # The default of Python 3.13, which few private authorities satisfy.
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if _file_version(revoked):
            _load_revoked(made, revoked)
    certificate, key, password = own
    if certificate is not None:
        try:
            made.load_cert_chain(certificate, key, password)
        except OSError as error:
            if from_outside(error):
                raise
            raise errors.OperationalError(
                f"sslcert {certificate!r}, sslkey {key!r}: {error}"
            ) from error
    return made


def _load_revoked(made: ssl.SSLContext, revoked: Path) -> None:
    """Reject what the authorities have revoked."""
    try:
        made.load_verify_locations(revoked)
    except OSError as error:
        if from_outside(error):
            raise
        raise errors.OperationalError(f"the revocation list {str(revoked)!r}: {error}") from error
    made.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


@cache
def _hold_back_forks() -> None:
    """Make forks wait until no context is being made.

    In a child that is forked in between, OpenSSL's locks would be held forever.
    """
    at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
