"""The measurements that take longer than tests should: ``script/prove NAME``. One module each, with ``run``."""
