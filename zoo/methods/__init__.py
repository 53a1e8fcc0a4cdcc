"""One file per method, each readable top to bottom against its paper."""
