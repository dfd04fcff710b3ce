"""Routes of a bridge."""

from __future__ import annotations

import asyncio

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from media_bridge.server.live import LiveRoutes
from media_bridge.server.stream import StreamHandler
from media_bridge.server.webhooks import Webhooks
from media_bridge.shared import Shared
from stayline import names, telemetry

log = structlog.get_logger(__name__)

MAX_BODY = 64 * 1024
"""Bytes of a request's body; a carrier's webhook has about 1 kB."""


def build_app(bridge: Shared) -> web.Application:
    """The bridge's HTTP application."""
    webhooks = Webhooks(bridge)
    stream = StreamHandler(bridge)

    async def health(_: web.Request) -> web.Response:
        """The process runs."""
        tasks = len(asyncio.all_tasks())  # grows with the calls, and shrinks with them
        state = {"status": "ok", "bridge": bridge.id, "calls": len(bridge.sessions), "tasks": tasks}
        return web.json_response(state)

    async def ready(request: web.Request) -> web.Response:
        """The process takes new calls: it holds its lease, has room, and is not draining."""
        why = bridge.unready
        if not why and "warm" in request.query and not bridge.warm.is_set():
            why = "warming"
        state = {
            "ready": not why,
            "why": why,
            "warm": bridge.warm.is_set(),
            "bridge": bridge.id,
            "calls": len(bridge.sessions),
            "max_calls": bridge.capacity.places,
            "loop_lag_ms": round(bridge.capacity.lag_ms, 1),
        }
        return web.json_response(state, status=503 if why else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=telemetry.prometheus_text(), headers={"Content-Type": telemetry.PROMETHEUS_CONTENT_TYPE}
        )

    @web.middleware
    async def leave(request: web.Request, handler: Handler) -> web.StreamResponse:
        """A bridge that drains keeps no connection: the next request is another bridge's."""
        answer = await handler(request)
        if bridge.draining:
            answer.force_close()
        return answer

    app = web.Application(client_max_size=MAX_BODY, middlewares=[_errors, leave])
    app.router.add_post(names.INBOUND_PATH, webhooks.inbound)
    app.router.add_post(names.NEXT_PATH, webhooks.next)
    app.router.add_post(names.STATUS_PATH, webhooks.status)
    app.router.add_get(names.STREAM_PATH, stream.handle)
    LiveRoutes(bridge).add_to(app)
    app.router.add_get("/health", health)
    app.router.add_get("/ready", ready)
    app.router.add_get("/metrics", metrics)
    return app


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A fault in one request stays in that request, and its text stays here."""
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception as error:
        log.exception("request_failed", path=request.path, kind=type(error).__name__)
        raise web.HTTPInternalServerError(text="internal error") from error
