"""The built-in scans. They come through the same entry point as everybody's."""

from scan_server.scans.acquire import Acquire
from scan_server.scans.adaptive_line_scan import AdaptiveLineScan
from scan_server.scans.align import Align
from scan_server.scans.cont_line import ContLineFlyScan, ContLineScan, LineSweepScan, MonitorScan
from scan_server.scans.energy_scan import EnergyScan
from scan_server.scans.fermat_scan import FermatScan
from scan_server.scans.grid_scan import GridScan
from scan_server.scans.hexagonal_scan import HexagonalScan
from scan_server.scans.line_scan import LineScan
from scan_server.scans.list_grid_scan import ListGridScan
from scan_server.scans.list_scan import ListScan
from scan_server.scans.log_scan import LogScan
from scan_server.scans.multi_region import MultiRegionGridScan, MultiRegionLineScan
from scan_server.scans.mv import Mv, Umv
from scan_server.scans.round_roi_scan import RoundROIScan
from scan_server.scans.round_scan import RoundScan
from scan_server.scans.round_scan_fly import RoundScanFly
from scan_server.scans.spec import (
    A2Scan,
    AMesh,
    AScan,
    Ct,
    D2Scan,
    DMesh,
    DScan,
    LoopScan,
    Mesh,
    TimeScanOfSpec,
)
from scan_server.scans.spiral_scan import SpiralScan
from scan_server.scans.time_scan import TimeScan
from scan_server.scans.tomo_scan import TomoScan

__all__ = [
    "A2Scan",
    "AMesh",
    "AScan",
    "Acquire",
    "AdaptiveLineScan",
    "Align",
    "ContLineFlyScan",
    "ContLineScan",
    "Ct",
    "D2Scan",
    "DMesh",
    "DScan",
    "EnergyScan",
    "FermatScan",
    "GridScan",
    "HexagonalScan",
    "LineScan",
    "LineSweepScan",
    "ListGridScan",
    "ListScan",
    "LogScan",
    "LoopScan",
    "Mesh",
    "MonitorScan",
    "MultiRegionGridScan",
    "MultiRegionLineScan",
    "Mv",
    "RoundROIScan",
    "RoundScan",
    "RoundScanFly",
    "SpiralScan",
    "TimeScan",
    "TimeScanOfSpec",
    "TomoScan",
    "Umv",
]
