"""pgfleet: a sharded, geo-replicated, highly available PostgreSQL fleet from one file. A lazy shop window."""

from __future__ import annotations

__version__ = "0.1.0"
