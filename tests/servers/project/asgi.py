"""What uvicorn serves."""

from __future__ import annotations

import asyncio
from typing import Any

from django.core.asgi import get_asgi_application

from relet import close_all

_django = get_asgi_application()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Django, which does not see to the server's own start and end; then the pools are closed."""
    if scope["type"] != "lifespan":
        await _django(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.to_thread(close_all, 5)
    await send({"type": "lifespan.shutdown.complete"})
