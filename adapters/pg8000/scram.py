"""SCRAM as in libpq: with any role and any password.

scramp refuses what SASLprep prohibits: control characters, letters younger than Unicode 3.2, such
as emojis, and most mixtures of directions. PostgreSQL takes such a password as it is, and the
role's name from another message.

https://www.postgresql.org/docs/current/sasl-authentication.html
"""

from __future__ import annotations

import hashlib
import stringprep
import unicodedata
from base64 import b64decode, b64encode
from hmac import compare_digest, digest
from typing import Any

from pg8000.core import CoreConnection

from . import errors

_SASL = 10
_HASH = "sha256"
_PROHIBITED = (
    *(stringprep.in_table_a1, stringprep.in_table_c21_c22, stringprep.in_table_c3),
    *(stringprep.in_table_c4, stringprep.in_table_c5, stringprep.in_table_c6),
    *(stringprep.in_table_c7, stringprep.in_table_c8, stringprep.in_table_c9),
)


class LoginConnection(CoreConnection):  # type: ignore[misc]
    """A connection that logs in with any role and any password."""

    user: bytes
    password: Any
    auth: Any

    def handle_AUTHENTICATION_REQUEST(self, data: Any, context: Any) -> None:  # noqa: N802
        """Answer a request; see the same method of pg8000's."""
        if int.from_bytes(data[:4], "big") != _SASL:
            super().handle_AUTHENTICATION_REQUEST(data, context)
            return
        user, secret = self.user, self.password
        password = secret.decode()
        plain = password.isascii() and password.isprintable()
        # The server ignores this name. Without the right password, scramp cannot make the proof.
        self.user, self.password = b"*", secret if plain else b"*"
        try:
            super().handle_AUTHENTICATION_REQUEST(data, context)
        finally:
            self.user, self.password = user, secret
        if not plain:
            self.auth = Client(self.auth, saslprep(password))


class Client:
    """A client of scramp's with a proof of another password.

    https://www.rfc-editor.org/rfc/rfc5802#section-3
    """

    def __init__(self, client: Any, password: str) -> None:
        self._client = client
        self._password = password.encode()

    def set_server_first(self, message: str) -> None:
        """Take the server's first message."""
        self._client.set_server_first(message)
        self._server_first = message

    def get_client_final(self) -> str:
        """Return the message with the proof."""
        unproved = self._client.get_client_final().rpartition(",p=")[0]
        fields = dict(field.split("=", 1) for field in self._server_first.split(","))
        salt, iterations = b64decode(fields["s"]), int(fields["i"])
        salted = hashlib.pbkdf2_hmac(_HASH, self._password, salt, iterations)
        exchanged = f"{self._client.client_first_bare},{self._server_first},{unproved}".encode()
        key = digest(salted, b"Client Key", _HASH)
        signature = digest(hashlib.new(_HASH, key).digest(), exchanged, _HASH)
        proof = bytes(left ^ right for left, right in zip(key, signature, strict=True))
        self._expected = digest(digest(salted, b"Server Key", _HASH), exchanged, _HASH)
        return f"{unproved},p={b64encode(proof).decode()}"

    def set_server_final(self, message: str) -> None:
        """Take the server's last message.

        :raises OperationalError: the server does not know the password.
        """
        if not compare_digest(message.encode(), b"v=" + b64encode(self._expected)):
            raise errors.OperationalError("incorrect server signature")


def saslprep(password: str) -> str:
    """Return what PostgreSQL makes of a password: by SASLprep, or as it is.

    https://www.rfc-editor.org/rfc/rfc4013
    """
    if password.isascii():
        return password
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in password
        if stringprep.in_table_c12(char) or not stringprep.in_table_b1(char)
    )
    if not mapped or _is_prohibited(mapped):
        return password
    return unicodedata.normalize("NFKC", mapped)


def _is_prohibited(text: str) -> bool:
    if any(is_in_table(char) for char in text for is_in_table in _PROHIBITED):
        return True
    leftwards = [stringprep.in_table_d1(char) for char in text]
    if not any(leftwards):
        return False
    return not (leftwards[0] and leftwards[-1]) or any(map(stringprep.in_table_d2, text))
