"""How many may wait for an explanation.

Gradio bounds what waits for anything at all: long runs of some would keep everybody from predictions and examples, too.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

TOLD = "The app cannot take this now: it is busy, or out of reach. Try again in a minute."


def bound(page: gr.Blocks, most: int) -> None:
    """Of each kind of work at most `most` wait; one more is refused with 503. Call it after page.queue()."""
    queue = page._queue  # gradio offers no bound for one of its lines
    push = queue.push

    async def bounded(body: Any, request: Any, username: str | None) -> Any:
        asked = page.fns.get(body.fn_index)
        line = asked and queue.event_queue_per_concurrency_id.get(asked.concurrency_id)
        if line and len(line.queue) >= most:
            return False, f"{TOLD} ({most} wait already.)", "queue_full"
        return await push(body=body, request=request, username=username)

    queue.push = bounded
