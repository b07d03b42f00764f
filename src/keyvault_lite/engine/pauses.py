"""Waits that end early when the connection is needed for somebody else, or its client has gone."""

import asyncio

from keyvault_lite.model.intake import RequestConnection


async def pause(seconds: float, conn: RequestConnection | None) -> bool:
    """Wait for so long. False if the request was given up meanwhile."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[bool] = loop.create_future()

    def end(stayed: bool) -> None:  # noqa: FBT001  (a callback)
        if not ended.done():
            ended.set_result(stayed)

    timer = loop.call_later(seconds, end, True)  # noqa: FBT003
    try:
        with (conn or RequestConnection()).waiting(lambda: end(False)):  # noqa: FBT003
            return await ended
    finally:
        timer.cancel()
