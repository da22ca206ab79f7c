"""The keeper: one per fleet and host; it starts the units, starts again what dies, and fences what must not live."""

from __future__ import annotations
