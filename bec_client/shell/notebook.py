"""A running scan in a notebook: one output that is written anew while the scan runs, and stays with its cell.

The notebook is told by the display protocol (`display_data`, then `update_display_data` of the same id), as text and as
preformatted HTML: no widgets, nothing to install. What is sent does not grow with the scan.
"""

from __future__ import annotations

import html
import io
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from IPython.display import DisplayHandle
from rich.console import Console, RenderableType

if TYPE_CHECKING:
    from bec_client.client import BECClient

WIDTH = 100
REFRESH_S = 0.25
HEAD, TAIL = 5, 30  # lines that stay: the title and the head of the table, and the last rows


def show_in_notebook(client: BECClient) -> None:
    """Show the scans of a client in the notebook that this process is the kernel of."""
    console = NotebookConsole()
    client.live_updates.show_on(console, console.open, lambda _: console.output)
    client.live_updates.return_when_paused = True


class NotebookConsole(Console):
    """Takes what is printed of a scan, and keeps the output of its cell up to date."""

    def __init__(self, width: int = WIDTH):
        # A terminal without colours, so that a progress bar is wanted and is plain text.
        super().__init__(
            file=io.StringIO(), width=width, force_terminal=True, force_jupyter=False, color_system=None,
            highlight=False, legacy_windows=False,
        )  # fmt: skip
        self.output = Screen(self)

    def open(self) -> Screen:
        """A new output, for the next scan or move."""
        self.output = Screen(self)
        return self.output

    def print(self, *objects: Any, **how: Any) -> None:
        self.output.add(self.text_of(*objects, **how))

    def text_of(self, *objects: Any, **how: Any) -> str:
        with self.capture() as captured:
            super().print(*objects, **how)
        return captured.get()


class Screen:
    """What `rich.live.Live` is to a terminal: lines that stay, and below them what changes."""

    def __init__(self, console: NotebookConsole):
        self.console = console
        self._head: list[str] = []
        self._tail: list[str] = []
        self._left_out = 0
        self._changing = ""
        self._is_open = False
        self._due = 0.0
        self._handle: DisplayHandle | None = None

    def __enter__(self) -> Screen:
        self._is_open = True
        return self

    def __exit__(
        self, kind: type | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_open = False
        self._changing = ""
        self._publish()

    def add(self, text: str) -> None:
        """Lines that stay. While a scan runs they are seen with the next refresh, after it at once."""
        for line in text.rstrip("\n").splitlines():
            if len(self._head) < HEAD:
                self._head.append(line.rstrip())
            else:
                self._tail.append(line.rstrip())
        excess = len(self._tail) - TAIL
        if excess > 0:
            self._left_out += excess
            del self._tail[:excess]
        self._refresh()

    def update(self, renderable: RenderableType, refresh: bool = False) -> None:
        """What stands below the lines."""
        self._changing = self.console.text_of(renderable).rstrip()
        self._refresh()

    def _refresh(self) -> None:
        if not self._is_open or time.monotonic() >= self._due:
            self._publish()

    def _publish(self) -> None:
        between = [f"    ⋮  {self._left_out} lines more"] if self._left_out else []
        text = "\n".join([*self._head, *between, *self._tail, *self._changing.splitlines()])
        if not text:
            return
        data = {
            "text/plain": text,
            "text/html": f'<pre style="line-height: 1.25">{html.escape(text)}</pre>',
        }
        if self._handle is None:
            self._handle = DisplayHandle()
            self._handle.display(data, raw=True)
        else:
            self._handle.update(data, raw=True)
        self._due = time.monotonic() + REFRESH_S
