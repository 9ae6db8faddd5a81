"""The built-in scans. They come through the same entry point as everybody's."""

from scan_server.scans.acquire import Acquire
from scan_server.scans.grid_scan import GridScan
from scan_server.scans.line_scan import LineScan
from scan_server.scans.list_scan import ListScan
from scan_server.scans.mv import Mv, Umv
from scan_server.scans.time_scan import TimeScan

__all__ = ["Acquire", "GridScan", "LineScan", "ListScan", "Mv", "TimeScan", "Umv"]
