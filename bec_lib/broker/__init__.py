"""The broker's verbs: append, put, get, broadcast, read, batch. The only package that imports redis."""

from bec_lib.broker.broker import Batch, Broker, Delivery, Lease, Malformed, Sender
from bec_lib.broker.reader import LatestWatcher, StreamReader
from bec_lib.broker.settings import RedisSettings

__all__ = [
    "Batch",
    "Broker",
    "Delivery",
    "LatestWatcher",
    "Lease",
    "Malformed",
    "RedisSettings",
    "Sender",
    "StreamReader",
]
