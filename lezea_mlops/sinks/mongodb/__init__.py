"""Delivery to MongoDB."""

from lezea_mlops.sinks.mongodb.connection import address_of
from lezea_mlops.sinks.mongodb.sink import MongoSink

__all__ = ["MongoSink", "address_of"]
