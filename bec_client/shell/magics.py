"""%pause, %resume, %abort ...: what is typed in a hurry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, line_magic, magics_class

from bec_client.tables import console

if TYPE_CHECKING:
    from bec_client.client import BECClient


@magics_class
class BecMagics(Magics):
    """The scan queue, by one word."""

    def __init__(self, shell: Any, client: BECClient):
        super().__init__(shell)
        self._client = client
        self._ipython_reset = shell.find_line_magic("reset")

    def _say(self, text: str) -> None:
        console().print(text, style="yellow")

    @line_magic
    def abort(self, line: str) -> None:
        """%abort: end the running or paused scan; its points stay in its file."""
        self._client.queue.request_scan_abortion()
        self._end("aborted")

    @line_magic
    def halt(self, line: str) -> None:
        """%halt: end the scan without its clean-up moves."""
        self._client.queue.request_scan_halt()
        self._end("halted")

    @line_magic
    def pause(self, line: str) -> None:
        """%pause: pause at once, between two phases of a point. `%pause after point`, `%pause after scan`: later."""
        match line.split():
            case []:
                self._pause(deferred_pause=False)
            case ["after", "point"]:
                self._pause(deferred_pause=True)
            case ["after", "scan"]:
                told = self._client.queue.request_scan_interruption(after_scan=True)
                self._say(f"{told} %resume lets it go on.")
            case _:
                self._say(f"%pause {line.strip()}? There are: %pause, %pause after point, %pause after scan.")

    @line_magic
    def deferred_pause(self, line: str) -> None:
        """%deferred_pause: pause after the point in hand."""
        self._pause(deferred_pause=True)

    @line_magic
    def queue(self, line: str) -> None:
        """%queue: what runs and what waits."""
        console().print(str(self._client.queue))

    @line_magic
    def resume(self, line: str) -> None:
        """%resume: go on with the paused scan, and watch it again if it is this shell's."""
        told = self._client.queue.request_scan_continuation()
        report = self._client.last_report
        if (
            report is not None
            and report.scan is not None
            and not report.done
            and self._client.live_updates.enabled
        ):
            self._client.live_updates.show(report)
        else:
            self._say(told)

    @line_magic
    def restart(self, line: str) -> None:
        """%restart: abort the running scan and run it again."""
        self._say(self._client.queue.request_scan_restart())

    @line_magic
    def stop(self, line: str) -> None:
        """%stop: stop all devices now, whatever moves them."""
        self._client.service_status.require(self._client.session.server_roles(), "%stop")
        self._client.stop_devices()
        self._say("Told all devices to stop.")

    @line_magic
    def reset_queue(self, line: str) -> None:
        """%reset_queue: abort what runs and empty the queue."""
        self._say(self._client.queue.request_queue_reset())

    @line_magic
    def reset(self, line: str) -> None:
        """%reset: as %reset_queue. With arguments it is IPython's own, e.g. `%reset -f` forgets all names."""
        if line.strip():
            self._ipython_reset(line)
        else:
            self._say(self._client.queue.request_queue_reset())

    @line_magic
    def schema(self, line: str) -> None:
        """%schema line_scan: what a scan takes, with units and bounds, and the metadata that this client adds."""
        name = line.strip().removeprefix("scans.")
        if not name:
            self._say(f"%schema needs the name of a scan: {', '.join(self._client.scans.names())}.")
            return
        from bec_client.tables import schema_table, show

        show(schema_table(self._client.scans.info(name), self._client.scans.metadata()))

    @line_magic
    def su(self, line: str) -> None:
        """%su NAME: go on as another user: requests, scans and files are theirs from now on."""
        name = line.strip()
        if not name:
            self._say(f"You are {self._client.username}. %su NAME goes on as somebody else.")
            return
        self._client.switch_user(name)
        self._say(f"You are {name} now.")

    @line_magic
    def server_restart(self, line: str) -> None:
        """%server_restart: how the services are restarted."""
        config = self._client.service_config.source_file
        option = f" --config {config}" if config else ""
        self._say(
            f"The services are restarted where they run: `bec-server restart{option}`. A scan that runs goes on after it; "
            "this shell waits for it."
        )

    def _pause(self, deferred_pause: bool) -> None:
        told = self._client.queue.request_scan_interruption(deferred_pause=deferred_pause)
        self._say(f"{told} %resume goes on, %abort ends the scan.")

    def _end(self, word: str) -> None:
        report = self._client.last_report
        if report is None or report.scan is None or report.scan.ended.is_set():
            self._say(f"The scan is {word}.")
            return
        scan = report.scan
        scan.ended.wait(10.0)
        number = f"Scan {scan.scan_number}" if scan.scan_number is not None else report.what
        count = scan.num_readouts
        points = f", {count} points are kept" if count else ""
        self._say(f"{number} is {scan.status if scan.ended.is_set() else 'being ' + word}{points}.")
