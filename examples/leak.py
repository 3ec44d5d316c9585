"""A program that leaks: 1 MB every 50 ms, for ever. What `make demo` stops."""

import time

leaked = []
while True:
    leaked.append(b"\x01" * (1 << 20))
    time.sleep(0.05)
