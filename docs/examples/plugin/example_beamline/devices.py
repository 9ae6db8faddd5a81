"""The beamline's own device classes. This one has no hardware behind it, so that the example can be tried anywhere."""

from ophyd import Component, Device, DeviceStatus, Kind, Signal

__all__ = ["ExampleShutter"]


class ExampleShutter(Device):
    """A shutter: 1 is open, 0 is closed. `openings` counts how often it was opened."""

    USER_ACCESS = ["close_now"]

    blade = Component(Signal, value=0, kind=Kind.hinted)
    openings = Component(Signal, value=0, kind=Kind.normal)

    def __init__(self, prefix="", *, name, **options):
        super().__init__(prefix, name=name, **options)
        # Read as "shutter" and not as "shutter_blade".
        self.blade.name = name

    def set(self, value):
        """Open (1) or close (0). Returns a status, as every ophyd device does."""
        if value and not self.blade.get():
            self.openings.put(self.openings.get() + 1)
        self.blade.put(int(value))
        status = DeviceStatus(self)
        status.set_finished()
        return status

    def close_now(self):
        self.blade.put(0)
        return 0
