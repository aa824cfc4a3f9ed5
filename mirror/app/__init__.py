"""The composition root: builds every part from the settings, owns every task, starts and stops in order."""

from mirror.app.parts import Parts, opened_parts
from mirror.app.serve import RunningMirror, running_mirror, serve

__all__ = ["Parts", "RunningMirror", "opened_parts", "running_mirror", "serve"]
