"""Delivery: the shipper moves records, the breaker says when, the loop waits. No sink is named here."""

from lezea_mlops.delivery.breaker import Breaker
from lezea_mlops.delivery.health import SinkHealth
from lezea_mlops.delivery.loop import CALL_WAIT_S, DeliveryLoop
from lezea_mlops.delivery.shipper import Shipper, Step
from lezea_mlops.delivery.surprises import surprises_end_here

__all__ = ["CALL_WAIT_S", "Breaker", "DeliveryLoop", "Shipper", "SinkHealth", "Step", "surprises_end_here"]
