"""What every service is made of: configuration, inbox, heartbeat, lease, logging, signals, and the loop
around an app.
"""

from bec_lib.service.config import ServiceConfig, load_service_config
from bec_lib.service.inbox import DirectInbox, Event, Inbox, ThreadedInbox
from bec_lib.service.service import App, Service, run

__all__ = [
    "App",
    "DirectInbox",
    "Event",
    "Inbox",
    "Service",
    "ServiceConfig",
    "ThreadedInbox",
    "load_service_config",
    "run",
]
