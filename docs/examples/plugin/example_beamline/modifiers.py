"""What the beamline changes of all scans, ours and its own."""

from bec_lib.scans import Move, Read, ScanModifier, Steps, after, before, change, cleanup, hide

SCANS = ("line_scan", "grid_scan", "snake_scan")


class BeamOnSample(ScanModifier):
    """The shutter is open while points are taken, and closed afterwards however the scan ends."""

    devices = ("shutter",)
    defaults = {"line_scan": {"exp_time": 0.01}}
    parameters = {
        "snake_scan": {"exp_time": change(default=0.02, le=10.0), "readout_time": hide()},
    }

    def applies(self) -> bool:
        # A session without the shutter, as in a test, can scan, too.
        return "shutter" in self.known_devices

    @before("points", scans=SCANS)
    def open_shutter(self) -> Steps:
        yield Move({"shutter": 1})
        reading = yield Read(["shutter"])
        if reading["shutter"]["shutter"]["value"] != 1:
            raise RuntimeError("the shutter did not open; is the hutch searched?")

    @after("points", scans=SCANS)
    @cleanup(scans=SCANS)
    def close_shutter(self) -> Steps:
        yield Move({"shutter": 0})
