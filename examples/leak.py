"""A program that leaks: 4 MB every 50 ms, for ever. What `make demo` stops."""

import time

leaked = []
while True:
    leaked.append(b"\x01" * (4 << 20))
    time.sleep(0.05)
