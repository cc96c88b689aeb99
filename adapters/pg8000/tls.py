"""TLS contexts, as libpq's settings have them.

One is kept for all connections with the same settings: the system's authorities take 20 ms to load,
and what OpenSSL does to make one is not safe while the process forks.

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

from . import errors

#: How many are kept: passwords and files that change make others.
_KEPT = 64
_contexts: OrderedDict[tuple[Any, ...], ssl.SSLContext] = OrderedDict()
_lock = RLock()


def context(parameters: Mapping[str, Any], mode: str) -> ssl.SSLContext:
    """Return what to connect with, by the settings and the ``sslmode``.

    :raises OperationalError: a file is not there, or is wrong.
    """
    root = parameters.get("sslrootcert")
    default = Path.home() / ".postgresql" / "root.crt"
    if root is None and (mode.startswith("verify") or default.exists()):
        root = default
    if mode in ("allow", "prefer") or (mode == "require" and root is None):
        authorities, check_hostname = None, False
    elif root == "system":
        authorities, check_hostname = "system", True
    else:
        # With a file, it trusts that one alone, and not the system's authorities beside it.
        authorities, check_hostname = str(root), mode == "verify-full"
        if not Path(authorities).exists():
            raise errors.OperationalError(
                f'the root certificate file "{authorities}" does not exist: give one as '
                "sslrootcert, use the system's with sslrootcert=system, or change sslmode"
            )
    own = tuple(parameters.get(name) for name in ("sslcert", "sslkey", "sslpassword"))
    key = (authorities, check_hostname, own, *map(_file_version, (*_files(authorities), *own[:2])))

    def find() -> ssl.SSLContext:
        if (found := _contexts.get(key)) is None:
            found = _make_context(authorities, check_hostname, own)
            _contexts[key] = found
            if len(_contexts) > _KEPT:
                _contexts.popitem(last=False)
        return found

    _hold_back_forks()
    return locked(_lock, find)


def _files(authorities: str | None) -> tuple[str | None, ...]:
    if authorities != "system":
        return (authorities,)
    paths = ssl.get_default_verify_paths()
    return paths.cafile, paths.capath


def _file_version(path: Any) -> tuple[Any, ...] | None:
    """Return what tells whether a file is another than before; None if there is none."""
    try:
        found = Path(path).stat()
    except (OSError, TypeError, ValueError) as error:
        if from_outside(error):
            raise
        return None
    return str(path), found.st_mtime_ns, found.st_size, found.st_ino


def _make_context(
    authorities: str | None, check_hostname: bool, own: tuple[Any, ...]
) -> ssl.SSLContext:
    if authorities is None:
        # Whoever verifies nothing needs none of the system's authorities.
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif authorities == "system":
        made = ssl.create_default_context()
    else:
        made = ssl.create_default_context(cafile=authorities)
        made.check_hostname = check_hostname
        # Since Python 3.13 it is, and authorities of one's own seldom are.
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
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


@cache
def _hold_back_forks() -> None:
    """Have forks wait for a context that is being made.

    A child that is forked in the middle would find OpenSSL's locks taken, for good.
    """
    at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
