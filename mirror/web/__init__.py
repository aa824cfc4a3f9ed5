"""What people and programs look at: home, statistics, health, metrics, and the admin API under ``/mirror/v1``."""

from mirror.web.admin import AdminFace
from mirror.web.bundle_face import BundleFace
from mirror.web.events_face import EventsFace
from mirror.web.gate import Gate
from mirror.web.hiding import hidden_from, hides
from mirror.web.keys_face import KeysFace
from mirror.web.metrics import Looked, Metrics
from mirror.web.openapi import OpenApiFace
from mirror.web.other_paths import OtherPaths
from mirror.web.queue_desk import QueueDesk
from mirror.web.queue_face import QueueFace
from mirror.web.rollback_face import RollbackFace
from mirror.web.setup_face import SetupFace
from mirror.web.status import StatusFace
from mirror.web.store_face import StoreFace
from mirror.web.turns_face import TurnsFace
from mirror.web.watch import Watch

__all__ = [
    "AdminFace",
    "BundleFace",
    "EventsFace",
    "Gate",
    "KeysFace",
    "Looked",
    "Metrics",
    "OpenApiFace",
    "OtherPaths",
    "QueueDesk",
    "QueueFace",
    "RollbackFace",
    "SetupFace",
    "StatusFace",
    "StoreFace",
    "TurnsFace",
    "Watch",
    "hidden_from",
    "hides",
]
