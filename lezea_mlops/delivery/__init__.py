"""Delivery: the shipper moves records, the breaker says when, the loop waits. No sink is named here."""

from lezea_mlops.delivery.breaker import Breaker
from lezea_mlops.delivery.health import SinkHealth, without_secrets
from lezea_mlops.delivery.loop import CALL_WAIT_S, DeliveryLoop
from lezea_mlops.delivery.shipper import Shipper, Step

__all__ = ["CALL_WAIT_S", "Breaker", "DeliveryLoop", "Shipper", "SinkHealth", "Step", "without_secrets"]
